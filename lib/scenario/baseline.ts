import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { deploy, deployment } from '../vm/deployment.ts'
import { Failure, usage } from '../failure.ts'
import type { Ground } from '../vm/ground.ts'
import { buildHosts, disagreement, type Facts } from '../nix/host.ts'
import { sshTarget, writeSshConfigOfAll } from '../vm/identity.ts'
import { fromHome } from '../lab-settings.ts'
import type { Lock } from '../lock.ts'
import { rememberBefore } from './before.ts'
import { machine, type Machine } from './machine.ts'
import { baselinePaths } from './oracle-facts.ts'
import { quote } from '../ssh/probes.ts'
import { freePort, isFree, qemuArgs, stopVm } from '../vm/qemu.ts'
import type { Note } from '../report/record.ts'
import { run } from '../run.ts'
import {
  CannotLoad,
  deleteSnapshot,
  restoreSnapshot,
  saveSnapshot,
  snapshotsOf,
} from '../vm/snapshot.ts'
import { connect } from '../ssh/ssh.ts'
import { switchTo } from '../vm/switch.ts'
import {
  files,
  knownVms,
  lockVm,
  qemuOf,
  readJson,
  readVm,
  theVm,
  writeJson,
  writeVm,
  type Running,
  type Vm,
} from '../vm/vm.ts'
import type { Clones, Template, World } from './world.ts'

/** A VM as every case finds it: it runs the world's generation, validated, golden, with its clones. */
export interface Baseline {
  tag: string
  /** Hash of all that it was made of. */
  key: string
  /** Store path that it runs, and that is golden. */
  toplevel: string
}

export interface Prepared extends Baseline {
  vm: Vm
  argv: string[]
  /** What its configuration declares. */
  facts: Facts
}

/** A VM's lock, held for a whole run; `deploy` has to take it for itself meanwhile. */
export interface Hold {
  release: () => void
  again: () => Promise<void>
}

/** @throws Failure naming who has the VM in hand */
export async function holdVm(host: string, what: string): Promise<Hold> {
  let held: Lock | undefined = await lockVm(host, what)
  return {
    release: () => {
      held?.release()
      held = undefined
    },
    again: async () => {
      held = await lockVm(host, what)
    },
  }
}

/** Raised when what a baseline consists of changes, so that older snapshots are made anew. */
const version = 1

const recordOf = (host: string): string => join(files(host).dir, 'baseline.json')

/**
 * Brings a VM to its baseline: from its snapshot where that is of the very same toplevel, remotes
 * and QEMU, else made anew (deployed, switched, seeded, rebooted and validated) and then kept as one.
 */
export async function ensureBaseline(
  host: string,
  world: World,
  from: Template,
  ground: Ground,
  hold: Hold,
  note: Note,
  say: (line: string) => void,
): Promise<Prepared> {
  const { patience } = ground.accelerator
  const wanted = await world.host(host, world.branch, ground.store)
  const wrong = disagreement(wanted, from)
  if (wrong) throw usage(`Cannot take \`${host}\` for a baseline: ${wrong}`, 'Set it in lab.toml')
  const known = readJson<Baseline>(recordOf(host))
  const before = readVm(host)
  if (before) {
    const vm = await withFreePort(before)
    const argv = qemuArgs(vm, ground.accelerator.kind, ground.firmware)
    await stopOther(vm, argv)
    await rememberBefore(vm, known, 60 * patience)
    try {
      if (known) {
        say('put it back to its snapshot')
        await restoreSnapshot(vm, known.tag, argv, 30 * patience)
        writeVm({ ...vm, toplevel: known.toplevel })
        if (known.key === (await keyOf(vm, argv, wanted.toplevel, from)))
          return { ...known, vm, argv, facts: wanted.facts }
      }
    } catch (thrown) {
      if (!(thrown instanceof CannotLoad)) throw thrown
    }
  }
  // one that runs is switched to the world's generation anyway
  const there = readVm(host)
  if (!there || !qemuOf(there)) {
    say('deploy')
    hold.release()
    await deploy([deployment(host)], true)
    await hold.again()
  }
  const vm = theVm(host)
  const argv = qemuArgs(vm, ground.accelerator.kind, ground.firmware)
  const restarted = await stopOther(vm, argv)
  // a VM that there was not is left as it was deployed
  if (!before) await rememberBefore(vm, known, 60 * patience)
  const key = await keyOf(vm, argv, wanted.toplevel, from)
  const { toplevel, facts } = wanted
  const made: Prepared = { vm, argv, facts, tag: `lab-${key}`, key, toplevel }
  const inHand = machine(vm, { patience, argv, tag: made.tag, note, say })
  say('build')
  await buildHosts([wanted], ground.store)
  if (restarted) {
    await inHand.powerOn()
    await inHand.awaitBoot('none', { limit: 90 })
  } else await inHand.until('SSH', 60, 'true')
  const ssh = await connect({ ...sshTarget(vm, 'root'), connectTimeout: 30 * patience })
  await switchTo(ssh, wanted, ground.store, patience, say)
  await ssh.close()
  say('seed')
  await seed(inHand, from)
  say('reboot')
  await inHand.reboot({ limit: 90 })
  say('validate')
  await validate(inHand, wanted.toplevel)
  inHand.disconnect()
  say('save')
  for (const tag of await snapshotsOf(vm)) {
    if (tag.startsWith('lab-')) await deleteSnapshot(vm, tag, 30 * patience)
  }
  await saveSnapshot(vm, made.tag, 60 * patience)
  writeVm({ ...vm, toplevel: wanted.toplevel })
  writeJson(recordOf(host), { tag: made.tag, key, toplevel: made.toplevel } satisfies Baseline)
  return made
}

/** Whether a VM has a baseline from an earlier run, of whatever it was made of. */
export const hasBaseline = (host: string): boolean => readJson(recordOf(host)) !== undefined

/** Ends a QEMU that was started with other arguments: no snapshot of ours fits it. */
async function stopOther(vm: Vm, argv: string[]): Promise<boolean> {
  const running = readJson<Running>(files(vm.host).running)
  if (!qemuOf(vm) || JSON.stringify(running?.argv) === JSON.stringify(argv)) return false
  await stopVm(vm, 30)
  return true
}

/** A VM that is off has no claim on its port. */
async function withFreePort(vm: Vm): Promise<Vm> {
  if (qemuOf(vm) || (await isFree(vm.port))) return vm
  const others = knownVms().filter((host) => host !== vm.host)
  const moved = {
    ...vm,
    port: await freePort(vm.slot, new Set(others.map((host) => theVm(host).port))),
  }
  writeVm(moved)
  writeSshConfigOfAll()
  return moved
}

async function keyOf(vm: Vm, argv: string[], toplevel: string, start: Template): Promise<string> {
  const qemu = (await run('qemu-system-x86_64', ['--version'])).stdout.split('\n')[0]
  // a port is the host's affair, which no snapshot holds
  const shape = argv.map((arg) => arg.replace(/hostfwd=tcp:[\d.]+:\d+/, ''))
  const all = [
    version,
    vm.uuid,
    vm.layer,
    qemu,
    shape,
    toplevel,
    start.config,
    start.dotfiles,
    seeding(start),
  ]
  return createHash('sha256').update(JSON.stringify(all)).digest('hex').slice(0, 12)
}

const isOwn = (path: string): boolean => path.startsWith('~/')

/** The clones that a user of the setup has, colocated, as `jj` makes them. */
export function seeding({ paths }: Clones): string {
  const [flake, dotfiles] = [fromHome(paths.flake), fromHome(paths.dotfiles)]
  const own = [paths.flake, paths.dotfiles].filter(isOwn).map(fromHome)
  const parents = [...new Set(own.map((path) => dirname(path)))].filter((path) => path !== '.')
  return `set -e
cd ~
${own.length > 0 ? `rm -rf ${own.join(' ')}` : ':'}
${parents.length > 0 ? `mkdir -p ${parents.join(' ')}` : ':'}
name=$(hostname)
jj config set --user user.name "$USER" 2>/dev/null
jj config set --user user.email "$USER@$name" 2>/dev/null
git config --global user.name "$USER"
git config --global user.email "$USER@$name"
jj git clone --colocate git://git.lab/config.git ${flake}
jj git clone --colocate git://git.lab/dotfiles.git ${dotfiles}
${dotfiles === '.local/share/chezmoi' ? '' : tellChezmoi(dotfiles)}chezmoi apply --force
`
}

/** Where chezmoi's source is not its default, it has to be told. */
const tellChezmoi = (dotfiles: string): string => `mkdir -p .config/chezmoi
printf 'sourceDir = "%s"\\n' "$(cd ${dotfiles} && pwd)" >.config/chezmoi/chezmoi.toml
`

async function seed(vm: Machine, from: Clones): Promise<void> {
  // a directory such as /etc/nixos is root's to make
  const others = [from.paths.flake, from.paths.dotfiles].filter((path) => !isOwn(path)).join(' ')
  if (others) {
    await vm.root(`rm -rf ${others} && install --directory --owner=${vm.vm.user} ${others}`)
  }
  await vm.user(`export USER=${quote(vm.vm.user)}; ${seeding(from)}`, {
    timeout: 120 * vm.patience,
  })
}

async function validate(vm: Machine, toplevel: string): Promise<void> {
  const { stdout } = await vm.root(
    `systemctl start golden-boot-validation.service boot-complete.target
    readlink -f /run/booted-system
    command -v pin-golden >/dev/null && { [ "$(readlink -f /nix/var/nix/gcroots/golden-generation)" = ${toplevel} ] || pin-golden; } >&2
    systemctl --failed --plain --no-legend | cut -d' ' -f1
    systemctl stop nix-local-upgrade.timer
    ls /nix/store >${baselinePaths}
    sync`,
    { timeout: 120 * vm.patience },
  )
  const [booted, ...failed] = stdout.trim().split('\n')
  if (booted === toplevel && failed.length === 0) return
  throw new Failure(
    `Cannot take \`${vm.host}\` for a baseline: ${booted === toplevel ? `units failed: ${failed.join(', ')}` : `it booted ${booted}`}`,
    {
      hint: `just deploy-test-vm ${vm.host} --fresh`,
    },
  )
}
