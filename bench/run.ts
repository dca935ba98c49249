/**
 * Measures the figures of docs/figures.md. Each is a ratio of two times from this one run, or seconds with a
 * limit, because machines differ and this one may be busy. The VMs are in a separate `LAB_HOME` and are ended
 * afterwards. `just bench`, or `just bench help deploy rebuild image recover jobs` for some parts.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { findAccelerator } from '../lib/vm/accelerator.ts'
import { findFirmware } from '../lib/vm/firmware.ts'
import { ensureBaseImage } from '../lib/image/image.ts'
import { storeOptions } from '../lib/nix/store.ts'
import { sshConfig, sshLine } from '../lib/vm/identity.ts'
import { readEvents, type Recorded } from '../lib/report/record.ts'
import { qemuArgs } from '../lib/vm/qemu.ts'
import { project } from '../lib/settings.ts'
import { table } from '../lib/table.ts'
import { files, theVm } from '../lib/vm/vm.ts'
import { changeHost, copyFlake } from '../tests/flake-copy.ts'

/** Keeps standard error for the exception of a command that fails. */
const quiet = { encoding: 'utf8', stdio: 'pipe' } as const
const only = process.argv.slice(2)
const wants = (part: string): boolean => only.length === 0 || only.includes(part)
const scratch = mkdtempSync(join(tmpdir(), 'lab-bench-'))
process.env['LAB_HOME'] = join(scratch, 'home')
process.env['LAB_ENV_FILE'] = ''
process.env['LAB_FLAKE'] = copyFlake(scratch)
const accelerator = await findAccelerator(findFirmware())
const rows: string[][] = [['figure', 'seconds', 'against', 'seconds', 'ratio', 'aim']]

/** The cases of `jobs`: those that take the least time. LAB_BENCH_CASES sets how many of them run. */
const shared = [
  ...['untracked-file', 'build-error', 'local-conflicts', 'syntax-error', 'half-written'],
  ...['dotfiles-first', 'both-at-once', 'local-merges', 'hooks', 'diverged'],
]
  .map((name) => `auto-upgrade/${name}`)
  .concat('concurrent-edits/different-files', 'concurrent-edits/same-line')

try {
  if (wants('help')) help()
  if (wants('image')) await image()
  if (wants('deploy') || wants('rebuild')) lab('deploy-vm', 'sorrow', 'torment')
  if (wants('deploy')) await deploy()
  if (wants('rebuild')) await rebuild()
  if (wants('recover')) recover()
  if (wants('jobs')) jobs()
} finally {
  lab('down', '--now')
  rmSync(scratch, { recursive: true, force: true })
}
console.log(table(rows))
console.log(
  `${cpus().length} CPUs (${cpus()[0]?.model}), ${accelerator.kind}, Node ${process.version}`,
)

/** What the imports of a task cost, against node with tsx on an empty file: the median of nine. */
function help(): void {
  const empty = join(scratch, 'empty.ts')
  writeFileSync(empty, '')
  const started = (file: string, ...args: string[]): number => median(9, () => node(file, args))
  const floor = started(empty)
  for (const task of [
    'verify',
    'deploy-vm',
    'add-to-flake',
    'pipelines/up',
    'rebuild-test-vm',
    'prove',
  ]) {
    const took = started(join(project, `tasks/${task}.ts`), '--help')
    note(`tsx tasks/${task}.ts --help`, took, 'tsx on an empty file', floor, '<= 1.5')
  }
}

/** The first image build: where its seconds and megabytes go. */
async function image(): Promise<void> {
  const cache = join(scratch, 'cache')
  const from = performance.now()
  const { manifest } = await ensureBaseImage({ cache })
  note('base image, from nothing', seconds(from), '', undefined, '')
  for (const stage of manifest.stages)
    note(`  ${stage.name}, ${stage.mb} MB then`, stage.seconds, '', undefined, '')
  rows.push([`  on disk ${(manifest.allocated / 1e6).toFixed(0)} MB`, '', '', '', '', ''])
}

/** A deploy of a cached host, against the same QEMU command by hand on the same kind of disk. */
async function deploy(): Promise<void> {
  const [deploys, wholes, hands]: number[][] = [[], [], []]
  for (let times = 0; times < 3; times++) {
    lab('down', '--now')
    const deployed = await freshly('sorrow')
    deploys!.push(deployed.toSsh)
    wholes!.push(deployed.whole)
    lab('down', '--now')
    hands!.push(await byHand('sorrow'))
  }
  const [one, hand] = [middle(deploys!), middle(hands!)]
  note('deploy of a cached host to SSH', one, 'QEMU and ssh by hand', hand, '<= 1.15')
  note('the same, subscribed and settled', middle(wholes!), 'to SSH', one, '')
  const both = await freshly('sorrow', 'torment')
  note('deploy of both to SSH', both.toSsh, 'deploy of one', one, '<= 1.5')
  // not timed: the first one waits for the boots to end, and loads every program for the first time
  lab('verify')
  note(
    'verify of both',
    median(9, () => lab('verify')),
    '',
    undefined,
    '<= 3 s',
  )
}

/** Seconds from QEMU's start to the first login, without the lab. */
async function byHand(host: string): Promise<number> {
  const vm = theVm(host)
  const { disk, vars, run } = files(host)
  const firmware = findFirmware()
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', vm.layer, '-F', 'qcow2', disk])
  // new variables, as a deploy has them: with these the firmware takes a second longer
  execFileSync('qemu-img', ['convert', '-O', 'qcow2', firmware.vars, vars])
  execFileSync('mkdir', ['-p', run])
  const argv = qemuArgs(vm, accelerator.kind, firmware)
  const from = performance.now()
  const qemu = spawn('qemu-system-x86_64', argv, { stdio: 'ignore' })
  const login = [
    '-F',
    sshConfig(),
    '-o',
    // a connection that is lost while the firmware runs would hold up the next one
    'ConnectTimeout=2',
    '-o',
    'ConnectionAttempts=1',
    host,
    'true',
  ]
  while (spawnSync('ssh', login, { stdio: 'ignore' }).status !== 0) {
    if (seconds(from) > 600) throw new Error(`Cannot log in by hand: ${sshLine(host)}`)
    await sleep(500)
  }
  const took = seconds(from)
  qemu.kill('SIGKILL')
  await new Promise((resolve) => qemu.once('exit', resolve))
  return took
}

/** One changed line, from the command until it is verified, against the same three commands by hand. */
async function rebuild(): Promise<void> {
  const flake = process.env['LAB_FLAKE']!
  lab('deploy-vm', 'sorrow')
  const change = (text: string): void =>
    changeHost(flake, 'sorrow', `{ environment.etc.bench.text = "${text}"; }`)
  change('warm')
  lab('rebuild-test-vm', 'sorrow')
  change('lab')
  const took = timed(() => lab('rebuild-test-vm', 'sorrow'))
  change('hand')
  const from = performance.now()
  await bareRebuild(flake)
  const hand = seconds(from)
  note('rebuild after a change, to verified', took, 'nix build, copy, switch', hand, '<= 20 s')
}

/** `nix build`, `nix copy` and a switch, as a person would type them, without checks before or after. */
async function bareRebuild(flake: string): Promise<void> {
  const store = storeOptions(await ensureBaseImage())
  const nix = ['--extra-experimental-features', 'nix-command flakes']
  const attribute = `${flake}#labConfigurations.sorrow.config.system.build.toplevel`
  const text = execFileSync(
    'nix',
    [...nix, 'build', ...store, '--no-link', '--json', attribute],
    quiet,
  )
  const [{ outputs }] = JSON.parse(text) as [{ outputs: { out: string } }]
  const env = { ...process.env, NIX_SSHOPTS: `-F ${sshConfig()}` }
  const to = [
    'copy',
    '--no-check-sigs',
    '--from',
    store[1]!,
    '--to',
    'ssh://sorrow-root',
    outputs.out,
  ]
  execFileSync('nix', [...nix, ...to], { ...quiet, env })
  const set = `nix-env --profile /nix/var/nix/profiles/system --set ${outputs.out}`
  const command = `${set} && ${outputs.out}/bin/switch-to-configuration switch`
  execFileSync('ssh', ['-F', sshConfig(), 'sorrow-root', command], quiet)
}

/** Each way to break a boot: seconds until the golden generation answers, against a plain reboot of the same VM. */
function recover(): void {
  const argv = ['--import', import.meta.resolve('tsx'), join(project, 'tasks/break-boot.ts')]
  const ran = spawnSync(process.execPath, [...argv, 'sorrow', '--json'], { encoding: 'utf8' })
  const { run } = JSON.parse(ran.stdout) as { run: string }
  const named = (wanted: string): [string, number][] =>
    readEvents(run).flatMap(({ name, case: broken = '', seconds: took }) =>
      name === wanted && typeof took === 'number' ? [[broken, took]] : [],
    )
  const [, plain] = named('sorrow rebooted')[0] ?? []
  for (const [broken, took] of named('sorrow recovered')) {
    note(`golden answers after ${broken}`, took, 'a plain reboot', plain, '')
  }
}

/** The cost of a copy of both VMs, and the same cases with 1, 2 and 4 jobs; every case has to pass. */
function jobs(): void {
  const cases = shared.slice(0, Number(process.env['LAB_BENCH_CASES'] ?? shared.length))
  const flags = cases.flatMap((name) => ['--case', name])
  const run = (count: number): Recorded[] => {
    const argv = ['--jobs', String(count), '--seed', '7', '--json', '--keep', ...flags]
    return readEvents((JSON.parse(lab('pipelines/gitops', ...argv)) as { run: string }).run)
  }
  const spansOf = (events: Recorded[], name: string): Recorded[] =>
    events.filter((one) => one.kind === 'step' && one.name === name && one.phase === 'end')
  // the first run also makes the baselines, which are not counted
  const took = (events: Recorded[]): number =>
    events.findLast(({ kind, phase }) => kind === 'case' && phase === 'end')!.t -
    Math.max(...spansOf(events, 'baseline').map(({ t }) => t))
  const alone = took(run(1))
  note(`${cases.length} cases, 1 job`, alone, '', undefined, '')
  for (const count of [2, 4]) {
    const events = run(count)
    const lasted = (end: Recorded): number => end.t - events.find(({ id }) => id === end.of)!.t
    const [casting = 0] = spansOf(events, 'make copies').map(lasted)
    const copies = [1, 2, 3].flatMap((number) => spansOf(events, `copy ${number}`))
    note(`what ${copies.length} copies stand on, once`, casting, '', undefined, '')
    for (const end of copies) {
      const mb = (bytes: unknown): string => (Number(bytes) / 1e6).toFixed(0)
      const cost = `${mb(end['disk'])} MB of disk, ${mb(end['memory'])} MB of memory`
      note(`${end.name} of ${copies.length}, ready: ${cost}`, lasted(end), '', undefined, '')
    }
    // fewer jobs than `count` if some would have nothing to do
    note(`${cases.length} cases, ${copies.length + 1} jobs`, took(events), '1 job', alone, '')
  }
}

function note(
  what: string,
  took: number,
  against: string,
  other: number | undefined,
  aim: string,
): void {
  const ratio = other === undefined ? '' : (took / other).toFixed(2)
  rows.push([what, took.toFixed(2), against, other?.toFixed(2) ?? '', ratio, aim])
  process.stderr.write(`${what}: ${took.toFixed(2)} s${ratio && `, ${ratio} of ${against}`}\n`)
}

/** @returns what it printed */
function lab(task: string, ...args: string[]): string {
  return node(join(project, `tasks/${task}.ts`), args)
}

function node(file: string, args: string[]): string {
  const argv = ['--import', import.meta.resolve('tsx'), file, ...args]
  const { status, stderr, stdout } = spawnSync(process.execPath, argv, { encoding: 'utf8' })
  if (status !== 0)
    throw new Error(`${file} ${args.join(' ')} exited with ${status}: ${stderr}${stdout}`)
  return stdout
}

/** Seconds of a deploy on new disks: until SSH has answered on each, and until its end. */
async function freshly(...hosts: string[]): Promise<{ toSsh: number; whole: number }> {
  const argv = ['--import', import.meta.resolve('tsx'), join(project, 'tasks/deploy-vm.ts')]
  const from = performance.now()
  const child = spawn(process.execPath, [...argv, ...hosts, '--fresh'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let toSsh = 0
  const said: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    said.push(line)
    if (/: wait for SSH \(/.test(line)) toSsh = seconds(from)
  })
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  if (code !== 0) throw new Error(`The deploy exited with ${code}: ${said.join('\n')}`)
  return { toSsh, whole: seconds(from) }
}

/** Median of the seconds of so many runs. */
function median(runs: number, run: () => void): number {
  return middle(Array.from({ length: runs }, () => timed(run)))
}

/** Median of an odd number of figures. */
function middle(figures: number[]): number {
  return figures.toSorted((a, b) => a - b)[(figures.length - 1) / 2]!
}

function timed(run: () => void): number {
  const from = performance.now()
  run()
  return seconds(from)
}

function seconds(from: number): number {
  return (performance.now() - from) / 1000
}
