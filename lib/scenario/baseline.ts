import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { deploy, deployment } from '../vm/deployment.ts'
import { Failure, onFailure, usage } from '../failure.ts'
import { endFaults } from '../fault/lease.ts'
import type { Ground } from '../vm/ground.ts'
import { buildHosts, disagreement, type Host } from '../nix/host.ts'
import { sshTarget } from '../vm/identity.ts'
import { fromHome, mayFail, mayFailHint } from '../lab-settings.ts'
import type { Lock } from '../lock.ts'
import { leaveAsBefore, rememberBefore } from './before.ts'
import { machine, type Machine } from './machine.ts'
import { baselinePaths } from './oracle-questions.ts'
import { ofGuest } from './host-module.ts'
import { gib } from '../vm/preflight.ts'
import { buildInGuest } from './trial.ts'
import { installWatcher } from './status-log.ts'
import type { Subject } from './subject.ts'
import { checksOf, judge, probesOf } from '../vm/checks.ts'
import type { Baseline, Prepared } from './prepared.ts'
import { probe } from '../ssh/probes.ts'
import { quote } from '../quote.ts'
import { withFreePort } from '../vm/port.ts'
import { qemuArgs, stopVm } from '../vm/qemu.ts'
import { serve } from '../vm/served.ts'
import type { Note } from '../report/record.ts'
import { counting } from '../retry.ts'
import { run } from '../run.ts'
import { CannotLoad } from '../vm/monitor.ts'
import { deleteSnapshot, restoreSnapshot, saveSnapshot, snapshotsOf } from '../vm/snapshot.ts'
import { bring, switchTo } from '../vm/switch.ts'
import { fetchInputs, lockedInputs } from '../nix/inputs.ts'
import { causeIn } from '../nix/nix.ts'
import { connected, type Ssh } from '../ssh/ssh.ts'
import {
  files,
  lockVm,
  qemuOf,
  readJson,
  readVm,
  runningOf,
  theVm,
  writeJson,
  writeVm,
  type Vm,
} from '../vm/vm.ts'
import type { Clones, Template, World } from './world.ts'

/** A VM's lock, held for a whole run, but released while `deploy` takes it itself. */
export interface Hold {
  release: () => void
  again: () => Promise<void>
}

/** @throws Failure naming the holder of the VM's lock */
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

/** Raise it when the contents of a baseline change, so that older snapshots are made anew. */
const version = 4

const recordOf = (host: string): string => join(files(host).dir, 'baseline.json')

/**
 * Brings a VM to its baseline. Its snapshot is restored if toplevel, remotes and QEMU are still the same. Otherwise the
 * baseline is made anew (deployed, switched, seeded, rebooted and validated) and saved as a snapshot.
 */
export async function ensureBaseline(
  host: string,
  world: World,
  from: Template,
  ground: Ground,
  subject: Subject,
  hold: Hold,
  note: Note,
  say: (line: string) => void,
): Promise<Prepared> {
  const { patience } = ground.accelerator
  const other = readVm(host)
  if (other && other.guest !== ground.guest.kind) {
    throw usage(
      `Cannot take \`${host}\` for a baseline: it was made as a \`${other.guest}\` guest, and the cases are for \`${ground.guest.kind}\``,
      `LAB_GUEST=${other.guest} runs them on it, just destroy-test-vm ${host} makes room for another`,
    )
  }
  const wanted = await world.host(host, world.branch, ground.store)
  const wrong = disagreement(wanted, from)
  if (wrong) throw usage(`Cannot take \`${host}\` for a baseline: ${wrong}`, 'Set it in lab.toml')
  const known = readJson<Baseline>(recordOf(host))
  const before = readVm(host)
  if (before) {
    let vm = await withFreePort(before)
    const argv = qemuArgs(vm, ground.accelerator.kind, ground.firmware)
    await stopOther(vm, argv)
    // cannot start from a baseline that differs in this: the new one would be on trial against its golden
    const fits = known !== undefined && (known.golden ?? true) === wanted.facts.goldenEnable
    if (known && !fits && vm.toplevel === known.toplevel) {
      await leaveAsBefore({ ...known, vm, argv, facts: wanted.facts }, patience)
      vm = theVm(host)
    }
    await rememberBefore(vm, known, 60 * patience)
    // a run that was killed during a fault leaves it active
    await endFaults(vm)
    try {
      if (known && fits) {
        await counting('put back to its snapshot', 30 * patience, say, () =>
          restoreSnapshot(vm, known.tag, argv, 30 * patience),
        )
        writeVm({ ...vm, toplevel: known.toplevel })
        if (known.key === (await keyOf(vm, argv, wanted.toplevel, from, subject)))
          return { ...known, vm, argv, facts: wanted.facts }
      }
    } catch (thrown) {
      if (!(thrown instanceof CannotLoad)) throw thrown
    }
  }
  // a running VM needs no deploy: it is switched to the world's generation below
  const there = readVm(host)
  if (!there || !qemuOf(there)) {
    hold.release()
    await deploy([deployment(host)], true, say)
    await hold.again()
    // the deploy has pointed it to the lab's own remotes
    serve(world.dir, host)
  }
  const vm = theVm(host)
  const argv = qemuArgs(vm, ground.accelerator.kind, ground.firmware)
  const restarted = await stopOther(vm, argv)
  // a new VM is left as it was deployed
  if (!before) await rememberBefore(vm, known, 60 * patience)
  const key = await keyOf(vm, argv, wanted.toplevel, from, subject)
  const { toplevel, facts } = wanted
  const made: Prepared = { vm, argv, facts, tag: `lab-${key}`, key, toplevel }
  const inHand = machine(vm, { patience, argv, tag: made.tag, note, say, subject })
  await buildHosts([wanted], ground.store, say)
  if (restarted) {
    await inHand.powerOn()
    await inHand.awaitBoot('none', { limit: 90 })
  } else await inHand.until('SSH', 60, 'true')
  const target = { ...sshTarget(vm, 'root'), connectTimeout: 30 * patience }
  await connected(target, async (root) => {
    // on a host without golden generations an earlier pin would boot for ever
    const unpin = '! command -v unpin-golden >/dev/null || unpin-golden'
    if (!facts.goldenEnable) await root.exec(unpin, { timeout: 60 * patience })
    await switchTo(root, wanted, ground.store, patience, say)
    await giveInputs(root, wanted, world, ground, note, say)
  })
  await counting('seed', 120 * patience, say, () => seed(inHand, from))
  await buildsSmall(inHand, from, say)
  await inHand.reboot({ limit: 90 })
  if (subject.forgets) await firstUpgrade(inHand)
  await counting('validate', 120 * patience, say, () => validate(inHand, wanted))
  inHand.disconnect()
  for (const tag of await snapshotsOf(vm)) {
    if (tag.startsWith('lab-')) await deleteSnapshot(vm, tag, 30 * patience)
  }
  await counting('save', 60 * patience, say, () => saveSnapshot(vm, made.tag, 60 * patience))
  writeVm({ ...vm, toplevel: wanted.toplevel })
  const golden = facts.goldenEnable
  writeJson(recordOf(host), { tag: made.tag, key, toplevel, golden } satisfies Baseline)
  return made
}

/** Whether a VM has a baseline of an earlier run, up to date or not. */
export const hasBaseline = (host: string): boolean => readJson(recordOf(host)) !== undefined

/** Ends a QEMU that was started with other arguments, which our snapshots would not fit. @returns whether it did */
async function stopOther(vm: Vm, argv: string[]): Promise<boolean> {
  const running = runningOf(vm.host)
  if (!qemuOf(vm) || JSON.stringify(running?.argv) === JSON.stringify(argv)) return false
  await stopVm(vm, 30)
  return true
}

async function keyOf(
  vm: Vm,
  argv: string[],
  toplevel: string,
  start: Template,
  subject: Subject,
): Promise<string> {
  const qemu = (await run('qemu-system-x86_64', ['--version'])).stdout.split('\n')[0]
  // the forwarded port is not part of a snapshot
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
    leadsHere(subject),
  ]
  return createHash('sha256').update(JSON.stringify(all)).digest('hex').slice(0, 12)
}

const isOwn = (path: string): boolean => path.startsWith('~/')

/** Shell script that makes the clones of a user of the setup: colocated, by `jj`. */
export function seeding({ paths }: Clones): string {
  const [flake, dotfiles] = [fromHome(paths.flake), fromHome(paths.dotfiles)]
  const own = [paths.flake, paths.dotfiles].filter(isOwn).map(fromHome)
  const parents = [...new Set(own.map((path) => dirname(path)))].filter((path) => path !== '.')
  return `set -e
cd ~
${own.length > 0 ? `rm -rf ${own.join(' ')}` : ':'}
${parents.length > 0 ? `mkdir -p ${parents.join(' ')}` : ':'}
name=$(uname -n)
jj config set --user user.name "$USER" 2>/dev/null
jj config set --user user.email "$USER@$name" 2>/dev/null
git config --global user.name "$USER"
git config --global user.email "$USER@$name"
jj git clone --colocate git://git.lab/config.git ${flake}
jj git clone --colocate git://git.lab/dotfiles.git ${dotfiles}
${dotfiles === '.local/share/chezmoi' ? '' : tellChezmoi(dotfiles)}chezmoi apply --force
`
}

/** Sets chezmoi's source directory if it is not the default. */
const tellChezmoi = (dotfiles: string): string => `mkdir -p .config/chezmoi
printf 'sourceDir = "%s"\\n' "$(cd ${dotfiles} && pwd)" >.config/chezmoi/chezmoi.toml
`

/** Redirects the URL that the subject fetches to the lab's remote; run for root and for the user. */
const leadsHere = ({ fetches }: Subject): string =>
  fetches ? `git config --global 'url.git://git.lab/config.git.insteadOf' ${quote(fetches)}` : ':'

/**
 * Copies the inputs of a guest's flake, and their inputs, into its store, where a locked flake finds them by hash.
 * The embedded guest gets only those that its evaluation on this side has fetched.
 */
async function giveInputs(
  root: Ssh,
  wanted: Host,
  world: World,
  { guest, store, accelerator }: Ground,
  note: Note,
  say: (line: string) => void,
): Promise<void> {
  const lock = await world.config.read('flake.lock')
  if (lock === undefined) return
  if (guest.kind === 'nixos') {
    // an input that no evaluation needs may be absent; the build in the guest finds out what is missing
    const missed = ({ message }: Failure): unknown =>
      note({ kind: 'say', name: `not every input could be fetched: ${message}` })
    await fetchInputs(world.flake(), lock, store, say).catch(onFailure(missed))
  }
  const roots = '/nix/var/nix/gcroots/lab'
  await root.exec(`mkdir -p ${roots}`)
  for (const { name, path } of await lockedInputs(lock, store)) {
    await bring(root, { ...wanted, toplevel: path }, store, accelerator.patience, say)
    await root.exec(`ln -sfn ${path} ${roots}/${quote(name)}`)
  }
}

/** Builds a change as small as those of cases in the guest, to find out here what such a build lacks, and name it. */
async function buildsSmall(vm: Machine, from: Clones, say: (line: string) => void): Promise<void> {
  const small = `{ ${ofGuest('anotherFirstStage')} environment.etc."lab-small".text = "small";
    systemd.services.lab-small = { wantedBy = [ "multi-user.target" ]; script = "true"; serviceConfig.Type = "oneshot"; }; }\n`
  await buildInGuest(vm, from.paths.flake, small, say).catch((thrown: unknown) => {
    if (!(thrown instanceof Failure)) throw thrown
    const { evidence = '' } = thrown.detail
    const memory = /out of memory|bad_alloc|cannot allocate|\bKilled\b/i.test(evidence)
    const why = memory
      ? `${gib(vm.vm.memory)} of memory is not enough to evaluate it`
      : `it cannot build a small change: ${causeIn(evidence) ?? thrown.message}`
    throw new Failure(`Cannot take \`${vm.host}\` for a baseline: ${why}`, {
      evidence,
      cause: thrown,
      hint: memory
        ? `just destroy-test-vm ${vm.host} && just deploy-test-vm ${vm.host} --memory ${Math.ceil((2 * vm.vm.memory) / 1024 ** 3)}G`
        : 'Add what a build in the guest needs, and the cache of this machine lacks, to its system.extraDependencies',
    })
  })
  await vm.user('rm -rf ~/.lab')
}

async function seed(vm: Machine, from: Clones): Promise<void> {
  // what the subject and the agents remember of the lab's own remotes does not fit the histories of the cases
  await vm.root(
    `systemctl stop ${vm.subject.unit}.timer ${vm.subject.unit}.service 2>/dev/null
    ${leadsHere(vm.subject)}
    ${vm.subject.forgets ?? ':'}
    rm -rf /var/lib/nix-local-upgrade/* /var/lib/chezmoi-sync/*`,
    { timeout: 60 * vm.patience },
  )
  // only root can make a directory such as /etc/nixos
  const others = [from.paths.flake, from.paths.dotfiles].filter((path) => !isOwn(path)).join(' ')
  if (others) {
    await vm.root(`rm -rf ${others} && install --directory --owner=${vm.vm.user} ${others}`)
  }
  await vm.user(`export USER=${quote(vm.vm.user)}; ${leadsHere(vm.subject)}; ${seeding(from)}`, {
    timeout: 120 * vm.patience,
  })
}

/** Lets the subject see the remote's first commit, so that it is not new to it later and a rewrite of it is noticed. */
async function firstUpgrade(vm: Machine): Promise<void> {
  const { result, log } = await vm.upgrade({ limit: 180 })
  if (result === 'success') return
  throw new Failure(
    `Cannot take \`${vm.host}\` for a baseline: its first upgrade ends in ${result}`,
    {
      evidence: log,
    },
  )
}

/**
 * Accepts a VM as a baseline only if it passes the checks of `verify`, no unit keeps restarting, and the wanted
 * generation is booted, validated and golden.
 */
async function validate(vm: Machine, wanted: Host): Promise<void> {
  const { toplevel } = wanted
  const refuse = (why: string, hint = `just deploy-test-vm ${vm.host} --fresh`): Failure =>
    new Failure(`Cannot take \`${vm.host}\` for a baseline: ${why}`, { hint })
  const asked = performance.now()
  const said = await vm.ask(
    `cut -d' ' -f1 /proc/uptime
    systemctl start golden-boot-validation.service boot-complete.target
    readlink -f /run/booted-system
    command -v pin-golden >/dev/null && { [ "$(readlink -f /nix/var/nix/gcroots/golden-generation)" = ${toplevel} ] || pin-golden; } >&2
    systemctl list-units --all --plain --no-legend --state=failed,auto-restart | cut -d' ' -f1
    journalctl --boot --no-pager --output=cat _PID=1 | sed -n 's/^\\(.*\\): Scheduled restart job, restart counter is at [3-9].*/\\1/p' | sort -u`,
    { timeout: 120 * vm.patience },
  )
  const [up, booted, ...failed] = said.split('\n')
  if (booted !== toplevel) throw refuse(`it booted ${booted}`)
  const bad = failed.filter((unit) => !mayFail(unit, wanted.facts.mayFail))
  if (bad.length > 0) {
    throw refuse(`units have failed or keep restarting: ${bad.join(', ')}`, mayFailHint)
  }
  const checks = checksOf(wanted)
  const target = { ...sshTarget(vm.vm), connectTimeout: 30 * vm.patience }
  const asks = (ssh: Ssh) => probe(ssh, probesOf(checks), 180 * vm.patience)
  const answers = await connected(target, asks)
  const red = judge(checks, answers).filter(({ state }) => state === 'fail')
  if (red.length > 0) {
    throw refuse(red.map(({ check, found }) => `${check}: found ${found || 'nothing'}`).join('; '))
  }
  const last = await vm.root(
    `systemctl stop ${vm.subject.unit}.timer 2>/dev/null
    ${installWatcher}
    ls /nix/store >${baselinePaths}
    sync
    cut -d' ' -f1 /proc/uptime`,
    { timeout: 60 * vm.patience },
  )
  // after a kernel was starved while it calibrated its clock, time limits end too early until the next boot
  const rate = (Number(last.stdout) - Number(up)) / ((performance.now() - asked) / 1000)
  if (!(rate < 1.5))
    throw refuse(`its clock runs ${rate.toFixed(1)} times as fast as this machine's`)
}
