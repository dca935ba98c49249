import {
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { execFileSync, spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { copyFlake } from '../flake-copy.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
beforeAll(() => {
  lab = makeLab()
})
afterAll(() => rmSync(lab.dir, { recursive: true }))

/** One line that says what could not be done, then only hints. */
const oneClearLine = (task: string): RegExp =>
  new RegExp(`^${task}: [A-Z].*[^.]\\n(  (hint|evidence|replay): [^]*)?$`)

test.each(['${x}', '"; rm', '../etc', 'a\nb', 'naïve', '-'])(
  'host name %j is refused in one line, and nothing is written',
  async (name) => {
    // a dry run, so that a name that gets through costs no VM
    const { code, stderr, stdout } = await lab.task('deploy-vm', '--dry-run', '--', name)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(oneClearLine('deploy-vm'))
    expect(readdirSync(lab.dir)).toEqual([])
  },
)

test.each(['destroy', 'ssh', 'verify', 'rebuild-test-vm', 'build', 'status', 'down', 'console'])(
  '%s refuses an invalid host name',
  async (task) => {
    const { code, stderr, stdout } = await lab.task(task, '../etc')
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(oneClearLine(task))
  },
)

test.each([
  [['--memory', '2'], 'memory'],
  [['--memory', '1M'], 'The least'],
  [['--disk', 'big'], 'disk size'],
  [['--disk', '1G'], 'The least'],
  [['--memory', '-1G'], '`-1G` as memory'],
  [['--memory', '1e99'], '`1e99` as memory'],
  [['--disk', `${'9'.repeat(30)}G`], `\`${'9'.repeat(30)}G\` as a disk size`],
  [['--cpus', '0'], '`0` for --cpus'],
  [['--cpus', '1.5'], '`1.5` for --cpus'],
  [['--disko'], 'the guest is `debian`'],
  [['--nope'], 'Unknown argument'],
])('deploy-vm %j is a usage failure', async (flags, word) => {
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow', ...flags)
  expect(code).toBe(2)
  expect(stderr).toContain(word)
  expect(stderr).toMatch(oneClearLine('deploy-vm'))
})

test('for an unknown host the existing ones are named', async () => {
  const { code, stderr } = await lab.task('deploy-vm', 'gloom')
  expect(code).toBe(2)
  expect(stderr).toContain('Cannot find host `gloom`')
  expect(stderr).toContain('sorrow, torment')
})

test.each([
  [
    'pipelines/gitops',
    ['--case', 'break-boot/panik'],
    'The nearest is break-boot/panic; just gitops-test --list',
  ],
  ['break-boot', ['--case', 'panik'], 'The nearest is panic; just break-boot --list'],
  ['pipelines/gitops', ['brake-boot'], 'The nearest is break-boot; just gitops-test --list'],
  ['pipelines/gitops', ['--subject', 'comim', '--list'], 'The nearest is comin; '],
  [
    'pipelines/gitops',
    ['--host', 'a', '--host', 'b', '--host', 'c'],
    'Name two, and run the others',
  ],
  ['auto-upgrade', ['a', 'b', 'c'], 'Name two, and run the others'],
  ['mutate', ['--case', 'break-boot/panic', '--list'], 'Tests alone run in no VM'],
  ['mutate', ['--scenarios', '--case', 'break-boot/panik', '--list'], 'The nearest is break-boot/'],
  ['mutate', ['--most', '2', '--list'], 'Tests alone run in no VM'],
  ['mutate', ['--scenarios', '--alone', '--tests', 'x', '--list'], 'With it no test judges'],
  ['coverage', ['--host', 'sorrow'], 'Tests alone run in no VM'],
  ['mutate', ['module/reachability', '--list'], 'A run without one would prove nothing'],
  ['mutate', ['golden-lib', '--resume'], 'It goes on with those of the last run'],
  ['mutate', ['--resume', '--seed', '7', '--list'], 'It goes on with those of the last run'],
  ['mutate', ['--resume', '--mutant', 'x', '--list'], 'It goes on with those of the last run'],
  [
    'coverage',
    ['--case', 'break-boot/panic', '--tests', 'tests/agents/goldn.test.ts'],
    'The nearest is tests/agents/golden.test.ts; They are in tests/agents',
  ],
  ['coverage', ['--seed', '7'], 'Tests alone run in no VM'],
  ['prove', ['known-bat'], 'The nearest is known-bad; just prove --list'],
  ['pipelines/gitops', ['--jobs', '0'], 'Write --jobs 4, or --jobs auto for as many'],
  ['prove', ['--jobs', 'many', '--list'], 'Write --jobs 4, or --jobs auto for as many'],
  ['prove', ['--jobs', '-1', '--list'], 'Write --jobs 4, or --jobs auto for as many'],
  ['pipelines/gitops', ['--jobs', '1e99', '--list'], 'Write --jobs 4, or --jobs auto for as many'],
  ['pipelines/gitops', ['--shard', '-1/4', '--list'], 'Write --shard 2/4 for the second of four'],
  ['prove', ['--shard', '1.5/4', '--list'], 'Write --shard 2/4 for the second of four'],
  [
    'chaos-network',
    ['cut', 'sorrow', '--link', 'uplink', '--for', '-5s'],
    'Write a time from 5s to 6h',
  ],
  [
    'chaos-network',
    ['delay', 'sorrow', '--link', 'uplink', '--ms', 'x'],
    'Write a whole number from 0 on',
  ],
  ['chaos-network', ['cut', 'sorrow', '--ms', '5'], 'tsx tasks/chaos-network.ts --help'],
  ['chaos-network', ['delay', 'sorrow', '--down', '99'], 'Its number is --ms'],
  [
    'chaos-network',
    ['delay', 'sorrow', '--link', 'uplink', '--ms', '5'],
    'Write --ms with a number from 20 to 5000',
  ],
  ['chaos-network', ['list', '--ms', '50'], 'tsx tasks/chaos-network.ts --help'],
  ['chaos-network', ['heal', '--for', '60s'], 'tsx tasks/chaos-network.ts --help'],
  ['chaos-network', ['cut', 'sorrow', '--list'], 'tsx tasks/chaos-network.ts --help'],
  ['deploy-vm', ['--dry-run', 'sorow'], 'The nearest is sorrow; '],
  ['chaos-network', ['dealy', 'sorrow', '--ms', '90'], 'The nearest are delay, heal; '],
  ['status', ['--jsn'], 'The nearest is --json; tsx tasks/status.ts --help'],
  ['verify', ['--host', 'sorow'], 'just status lists them, just deploy-test-vm sorow makes it'],
  ['copy', ['a', 'b'], 'Write one as sorrow:/tmp/file'],
  ['copy', ['a'], 'just copy file sorrow:'],
  ['copy', ['a', 'sorow:'], 'just status lists them'],
])('%s %j is refused in two short lines, with the nearest word', async (task, args, hint) => {
  const { code, stdout, stderr } = await lab.task(task, ...args)
  // a VM that does not exist may just not be made yet, so this is no usage error
  const wanted = /Cannot find a VM/.test(stderr) ? 3 : 2
  expect({ code, stdout }).toEqual({ code: wanted, stdout: '' })
  expect(stderr).toContain(`\n  hint: ${hint}`)
  for (const line of stderr.split('\n')) expect(line.length).toBeLessThan(200)
})

test('for a word that is neither a host nor a fault the nearest fault is suggested', async () => {
  const { code, stderr } = await lab.task('chaos-network', 'dealy')
  expect(code).toBe(2)
  expect(stderr).toMatch(
    /^chaos-network: Cannot find host `dealy`.*\n {2}hint: The nearest fault is delay; /,
  )
})

test('a syntax error in a flake is reported in one line with its place', async () => {
  const flake = copyFlake(mkdtempSync(join(tmpdir(), 'bad-')))
  writeFileSync(join(flake, 'hosts/sorrow/default.nix'), '{ lib, ... }: { roles = [ "vm" ; }')
  const { code, stderr } = await makeLabWith({ LAB_FLAKE: flake }).task('build', 'sorrow')
  expect(code).toBe(3)
  expect(stderr).toMatch(/^build: Cannot evaluate .*syntax error/m)
  expect(stderr).toContain('default.nix:1')
  rmSync(join(flake, '..'), { recursive: true })
})

test('a directory without a flake is reported in one line', async () => {
  const { code, stderr } = await makeLabWith({ LAB_FLAKE: lab.dir }).task('build')
  expect(code).toBe(3)
  expect(stderr).toMatch(/^build: Cannot evaluate /m)
})

test.each([
  ['packages = { };', 'nixos', 'has no nixosConfigurations', 'just scaffold-host web'],
  [
    'nixosConfigurations = { };',
    'nixos',
    'has none in nixosConfigurations',
    'just scaffold-host web',
  ],
  ['nixosConfigurations = { };', 'debian', 'has no labConfigurations', 'LAB_GUEST=nixos'],
])(
  'a flake with nothing but %s is reported in one line for the guest %s',
  async (outputs, guest, lacks, hint) => {
    const flake = mkdtempSync(join(tmpdir(), 'bad-'))
    writeFileSync(join(flake, 'flake.nix'), `{ outputs = { self }: { ${outputs} }; }`)
    const other = makeLabWith({ LAB_FLAKE: flake, LAB_GUEST: guest })
    for (const task of ['build', 'deploy-vm', 'pipelines/up', 'seal-secrets', 'auto-upgrade']) {
      const dry = task === 'deploy-vm' || task === 'pipelines/up' ? ['--dry-run'] : []
      const { code, stdout, stderr } = await other.task(task, ...dry)
      expect({ task, code, stdout }).toEqual({ task, code: 3, stdout: '' })
      expect(stderr.split('\n').slice(0, -1)).toEqual([
        `${task}: Cannot find a host: \`${flake}\` ${lacks}`,
        expect.stringMatching(new RegExp(`^  hint: .*${hint}`)),
      ])
    }
    rmSync(flake, { recursive: true })
  },
)

test('more memory than the machine has is refused', async () => {
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow', '--memory', '9000G')
  expect(code).toBe(3)
  expect(stderr).toMatch(/deploy-vm: Cannot start the VMs: they want 9000.0 GiB of memory/)
})

test('missing firmware is reported', async () => {
  const [LAB_OVMF_CODE, LAB_OVMF_VARS] = ['/nonexistent', '/nonexistent']
  const both = await makeLabWith({ LAB_OVMF_CODE, LAB_OVMF_VARS }).task('deploy-vm', 'sorrow')
  expect(both.code).toBe(3)
  expect(both.stderr).toContain('Cannot find the firmware `/nonexistent`')
})

test('setting only one half of the firmware is refused', async () => {
  const LAB_OVMF_VARS = '/nonexistent'
  const half = await makeLabWith({ LAB_OVMF_VARS }).task('deploy-vm', 'sorrow')
  expect(half.code).toBe(2)
  expect(half.stderr).toContain('Cannot use LAB_OVMF_VARS alone')
})

test('missing dotfiles are reported before any VM is made', async () => {
  const { code, stderr } = await makeLabWith({ LAB_DOTFILES: '/nonexistent' }).task(
    'deploy-vm',
    'sorrow',
  )
  expect(code).toBe(2)
  expect(stderr).toContain('Cannot find the directory `/nonexistent` of LAB_DOTFILES')
})

test('an unknown accelerator is refused', async () => {
  const word = await makeLabWith({ LAB_ACCEL: 'warp' }).task('deploy-vm', 'sorrow')
  expect(word).toMatchObject({ code: 2, stderr: expect.stringContaining('LAB_ACCEL=`warp`') })
})

test('a state directory that is a symlink is refused', async () => {
  const home = join(lab.dir, 'link')
  mkdirSync(join(lab.dir, 'target'))
  symlinkSync(join(lab.dir, 'target'), home)
  const { code, stderr } = await makeLabWith({ LAB_HOME: home }).task('deploy-vm', 'sorrow')
  expect(code).toBe(3)
  expect(stderr).toContain('it is a symlink')
  expect(readdirSync(join(lab.dir, 'target'))).toEqual([])
})

test('a full disk is reported before anything is made', async () => {
  const home = join(lab.dir, 'full')
  mkdirSync(home)
  const script = `mount -t tmpfs -o size=4M none ${home} && exec node --import tsx tasks/deploy-vm.ts sorrow`
  const run = () =>
    execFileSync('unshare', ['--map-root-user', '--user', '--mount', 'sh', '-c', script], {
      cwd: join(import.meta.dirname, '../..'),
      env: { ...process.env, ...lab.env, LAB_HOME: join(home, 'state') },
      stdio: 'pipe',
    })
  expect(run).toThrow(/Cannot make the disks of the VMs: it wants 1.0 GiB/)
})

test.each([
  ['build', { LAB_HOSTS: 'sorrow,gloom' }, 2, 'Cannot find host `gloom` of LAB_HOSTS in '],
  ['deploy-vm', { LAB_ACCEL: 'hvf' }, 2, 'Cannot read LAB_ACCEL=`hvf`'],
  ['deploy-vm', { LAB_SSH_PORT: '99999' }, 2, 'Cannot read LAB_SSH_PORT as a port: '],
  ['build', { LAB_FLAKE: '/nonexistent/flake' }, 3, 'hint: Name its directory: LAB_FLAKE=DIR'],
  ['deploy-vm', { LAB_ENV_FILE: tmpdir() }, 2, `Cannot read \`${tmpdir()}\`: it is a directory`],
  ['status', { LAB_ENV_FILE: '/nonexistent/env' }, 2, 'LAB_ENV_FILE: it does not exist'],
  ['publish', { LAB_HOME: '/dev/null/lab' }, 3, 'Cannot make `/dev/null/lab`: '],
  ['deploy-vm', { LAB_CACHE: '/dev/null/lab' }, 3, 'Cannot make `/dev/null/lab`: '],
  ['publish', { LAB_HOME: join(tmpdir(), 'x'.repeat(300)) }, 3, 'name too long'],
  [
    'add-to-flake',
    { LAB_FLAKE: '~', HOME: '/nonexistent' },
    2,
    'Cannot find `/nonexistent/flake.nix`',
  ],
])('%s with %j is refused in one line', async (task, env, code, words) => {
  const flags = { 'deploy-vm': ['sorrow', '--dry-run'], 'add-to-flake': ['web'] }[task] ?? []
  const ended = await makeLabWith(env).task(task, ...flags)
  expect(ended).toMatchObject({ code, stdout: '' })
  expect(ended.stderr).toMatch(oneClearLine(task))
  expect(ended.stderr).toContain(words)
})

test('--dry-run --json prints only JSON, with the effects of the settings', async () => {
  for (const task of ['deploy-vm', 'pipelines/up']) {
    const { code, stdout } = await makeLabWith({ LAB_ACCEL: 'tcg', LAB_SSH_PORT: '4000' }).task(
      task,
      '--dry-run',
      '--json',
      'sorrow',
    )
    expect(code).toBe(0)
    const steps = JSON.parse(stdout) as { of: string; step: string; would: string[] }[]
    expect(steps.map(({ of }) => of)).toContain('sorrow')
    const { would } = steps.find(({ step }) => step === 'preflight')!
    expect(would).toEqual(['look for tools, firmware, memory and disk space'])
    const start = steps.find(({ step }) => step === 'start')!
    expect(start.would[0]).toBe('start QEMU with SSH on 127.0.0.1:4000, or the next free port')
  }
})

test('a dry run does not write the missing lock of a flake', async () => {
  const flake = mkdtempSync(join(tmpdir(), 'dry-'))
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', flake, ...args], { encoding: 'utf8' })
  mkdirSync(join(flake, 'other'))
  writeFileSync(join(flake, 'other/flake.nix'), '{ outputs = _: { }; }')
  writeFileSync(
    join(flake, 'flake.nix'),
    '{ inputs.other.url = "path:./other"; outputs = { self, other }: { labConfigurations = { web = other; }; }; }',
  )
  git('init', '--quiet')
  git('add', '--all')
  const before = git('status', '--short')
  const other = makeLabWith({ LAB_FLAKE: flake })
  for (const task of ['deploy-vm', 'pipelines/up', 'seal-secrets']) {
    const { code, stdout } = await other.task(task, '--dry-run')
    expect({ task, code }).toEqual({ task, code: 0 })
    expect(stdout).toContain('web')
    expect(git('status', '--short')).toBe(before)
  }
  rmSync(flake, { recursive: true })
})

test('a slow reader gets all of a long output', () => {
  const script = 'node --import tsx tasks/prove.ts --list --json | { head -c 1; sleep 2; cat; }'
  const { stdout } = spawnSync('sh', ['-c', script], {
    cwd: join(import.meta.dirname, '../..'),
    env: { ...process.env, ...lab.env },
    encoding: 'utf8',
  })
  // more than a pipe holds
  expect(stdout.length).toBeGreaterThan(65_536)
  expect(JSON.parse(stdout)).not.toHaveLength(0)
})

test('a failed write to standard output is a failure', () => {
  const script = 'exec node --import tsx tasks/status.ts --json >/dev/full'
  const { status, stderr } = spawnSync('sh', ['-c', script], {
    cwd: join(import.meta.dirname, '../..'),
    env: { ...process.env, ...lab.env },
    encoding: 'utf8',
  })
  expect({ status, stderr }).toEqual({
    status: 3,
    stderr: 'status: Cannot write to standard output: ENOSPC\n',
  })
})

const makeLabWith = (env: Record<string, string>): Lab => {
  const other = makeLab({ LAB_HOME: join(lab.dir, 'other'), XDG_RUNTIME_DIR: lab.dir, ...env })
  rmSync(other.dir, { recursive: true })
  return other
}

test.each(['logs', 'console', 'ssh', 'screenshot'])(
  'the exit code of %s is the same if its error message cannot be written',
  (task) => {
    const script = `exec node --import tsx tasks/${task}.ts sorrow 2>/dev/full`
    const { status } = spawnSync('sh', ['-c', script], {
      cwd: join(import.meta.dirname, '../..'),
      env: { ...process.env, ...lab.env },
    })
    expect(status).toBe(3)
  },
)

test('a path given to a recipe is relative to the user’s directory', () => {
  const justfile = join(import.meta.dirname, '../../justfile')
  const just = join(justfile, '../node_modules/.bin/just')
  const args = ['--justfile', justfile, 'add-to-flake', 'wren', '--flake', '.', '--dry-run']
  const { status, stderr } = spawnSync(just, args, { cwd: tmpdir(), encoding: 'utf8' })
  expect({ status, stderr }).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('Cannot find `flake.nix`'),
  })
})

test('doctor reports a directory of another user, and suggests no packages for it', async ({
  skip,
}) => {
  if (process.getuid?.() !== 0) skip('not root')
  const LAB_HOME = join(lab.dir, 'of-another')
  mkdirSync(LAB_HOME)
  chownSync(LAB_HOME, 65534, 65534)
  const { code, stdout } = await makeLabWith({ LAB_HOME, LAB_ACCEL: 'tcg' }).task('doctor')
  expect(code).toBe(1)
  expect(stdout).toMatch(/disk for VMs +missing +.*`: set LAB_HOME to a directory of your own/)
  expect(stdout).not.toContain('--install')
})

test('a nix store that cannot be opened is not reported as an untracked file', async () => {
  const env = { LAB_GUEST: 'nixos', NIX_STATE_DIR: '/proc/nix' }
  const { code, stderr } = await makeLabWith(env).task('build', 'sorrow')
  expect(code).toBe(3)
  expect(stderr).toMatch(/^build: Cannot evaluate .*creating directory/)
  expect(stderr).toContain('hint: This user may not write there: ')
})
