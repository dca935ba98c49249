import { Failure } from '../failure.ts'
import { inHome } from '../lab-settings.ts'
import { guestOf } from '../nix/guest.ts'
import type { StorePath } from '../nix/store.ts'
import { causeIn, firstError } from '../nix/nix.ts'
import { quote } from '../quote.ts'
import { agentJson } from './agent-json.ts'
import { ownFiles } from './host-module.ts'
import type { Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { told } from './told.ts'
import { counting, pause, TookTooLong } from '../retry.ts'
import type { Ran } from '../run.ts'
import { KernelFailed } from '../vm/kernel.ts'
import { qemuOf } from '../vm/vm.ts'

/** Text of a module that changes a host and breaks nothing. */
export const harmless = '{ environment.etc."lab-trial".text = "a good one"; }'

/** A unit that runs while systemd starts, before anything that a boot waits for. */
export function early(script: string): string {
  return `{ systemd.services.lab-break = { wantedBy = [ "sysinit.target" ]; unitConfig.DefaultDependencies = false;
    serviceConfig = { Type = "oneshot"; ExecStart = "/bin/sh -c '${script}'"; }; }; }`
}

/** Text of a module whose kernel panics while systemd starts. */
export const panics = early('echo c >/proc/sysrq-trigger')
/** Recorded reason of a trial that never came up to be validated. */
export const notUp = /^it did not come up/

/** File in which the agents record failed trials: a toplevel, a time and a reason on each line. */
export const failedTrials = '/var/lib/golden-generation/failed'

/** A generation that was built in the guest and made the boot default, as a rebuild by hand does. */
export interface Rebuilt {
  toplevel: StorePath
  /** Exit status of switch-to-configuration: not 0 if it refused, or left something undone. */
  code: number
  /** What it printed. */
  said: string
}

/**
 * Builds the guest's own configuration with one more module and makes it the boot default; nothing of
 * it runs before a reboot.
 * @param module text of a NixOS module
 */
export const rebuild = (scene: Scene, vm: Machine, module: string): Promise<Rebuilt> =>
  vm.spend('rebuilds by hand', () => rebuilt(scene, vm, module))

/**
 * Builds the guest's own configuration with one more module, as its user.
 * @param path of its flake, as lab.toml has it
 * @returns the toplevel
 * @throws Failure with the error of nix that came first
 */
export async function buildInGuest(
  vm: Machine,
  path: string,
  module: string,
  say: (line: string) => void,
): Promise<StorePath> {
  const home = `/home/${vm.vm.user}`
  const flake = inHome(path, home)
  await vm.write(`${home}/.lab/hosts/module.nix`, module, { user: true })
  await vm.write(
    `${home}/.lab/default.nix`,
    `((builtins.getFlake "git+file://${flake}").${guestOf(vm.vm).attribute}."${vm.host}".extendModules { modules = [ ./hosts/module.nix ]; }).config.system.build.toplevel\n`,
    { user: true },
  )
  // as the owner of the repository: Nix reads no repository of another user
  const limit = 90 * vm.patience
  const command = `cp ${quote(`${flake}/${ownFiles}/guest.nix`)} ~/.lab/ && nix build --impure --no-link --print-out-paths --file ~/.lab`
  const built = await counting(`build in ${vm.host}`, limit, say, () =>
    vm.user(command, { timeout: limit, allow: 'any' }),
  )
  if (built.code !== 0) {
    const evidence = firstError(built.stderr)
    const why = causeIn(evidence) ?? `nix exited with ${built.code}`
    throw new Failure(`Cannot build in \`${vm.host}\`: ${why}`, { evidence })
  }
  return built.stdout.trim() as StorePath
}

/** The command that makes a toplevel the boot default, as a rebuild does once it has built it. */
export const makesDefault = (toplevel: string): string =>
  `nix-env --profile /nix/var/nix/profiles/system --set ${toplevel} && ${toplevel}/bin/switch-to-configuration boot`

async function rebuilt(scene: Scene, vm: Machine, module: string): Promise<Rebuilt> {
  const toplevel = await buildInGuest(vm, scene.world.paths.flake, module, scene.say)
  const made = await vm.root(`{ ${makesDefault(toplevel)}; } 2>&1`, {
    timeout: 60 * vm.patience,
    allow: 'any',
  })
  return { toplevel, code: made.code, said: made.stdout.trim() }
}

/** As `rebuild`, and checks that the result is on trial; without golden, that it boots next. */
export async function armed(scene: Scene, vm: Machine, module: string): Promise<StorePath> {
  const { toplevel, code, said } = await rebuild(scene, vm, module)
  if (!scene.golden(vm)) {
    scene.must('the rebuild boots next', 0, code)
    return toplevel
  }
  const lines = said.split('\n')
  scene.must(
    'the rebuild is on trial',
    `0 on trial at the next boot: ${toplevel}`,
    `${code} ${lines.findLast((line) => line.startsWith('on trial')) ?? lines.at(-1)}`,
  )
  return toplevel
}

/**
 * Waits until golden has booted and judged the trial, and checks the records that a failed trial must leave.
 * @param reason the reason that must be recorded for the trial
 * @param seconds from the reboot to golden's SSH
 */
export async function comesBack(
  scene: Scene,
  vm: Machine,
  trial: string,
  reason: RegExp,
  seconds: number,
): Promise<void> {
  const golden = scene.start(vm)
  scene.event(`${vm.host} recovered`, { host: vm.host, seconds })
  scene.say(`${vm.host} is back after ${seconds.toFixed(0)} s`)
  // what other subjects record of a failed boot is unknown; the oracle checks what boots next
  if (!scene.golden(vm)) return
  await comes(scene, vm, 'golden is validated', 90, validated)
  const said = await vm.ask(`grep ^${trial} ${failedTrials} || true`)
  const failed = said.split('\n').at(-1) ?? ''
  scene.check('the trial is written down as failed', reason, failed.split(' ').slice(2).join(' '))
  const { trial: next, profile, oneshot, lastFailed } = await bootStatus(scene, vm)
  scene.check(
    'show-boot-status --json names the last failed trial',
    failed,
    lastFailed ?? undefined,
  )
  const words = await told(scene, vm, 'show-boot-status')
  scene.check(
    'show-boot-status lists the failed trial',
    `  ${failed}`,
    words.split('failed trials:\n')[1]?.split('\n').at(-1),
  )
  scene.check('nothing is on trial any more', 'null null', `${next} ${oneshot}`)
  scene.check('golden is the system profile', golden, profile ?? undefined)
}

/** What `show-boot-status --json` prints on a VM. */
export async function bootStatus(
  scene: Scene,
  vm: Machine,
): Promise<Record<string, string | null>> {
  const command = 'show-boot-status --json'
  return agentJson(await told(scene, vm, command), `what \`${command}\` says on ${vm.host}`)
}

/**
 * Waits for a boot. If it does not come, that is a failed check, whether something else has booted or nothing has.
 * @param name of the check, such as `golden boots again`
 * @returns seconds that the wait took
 */
export async function rebooted(
  { check, must }: Scene,
  vm: Machine,
  name: string,
  wait: () => Promise<number>,
): Promise<number> {
  const seconds = await wait().catch(async (thrown) => {
    if (!(thrown instanceof TookTooLong)) throw thrown
    must(name, 'booted', await bootedInstead(vm, thrown))
    throw thrown
  })
  check(name, 'booted', 'booted')
  return seconds
}

/**
 * What a VM has booted instead of the boot that was waited for. A machine that hangs counts, too. One whose kernel has
 * crashed, or whose QEMU is gone, shows nothing about what it would have booted.
 * @throws in these two cases the kernel's error, or the wait's own
 */
async function bootedInstead(vm: Machine, thrown: TookTooLong): Promise<string> {
  const asked = await vm.agent('readlink -f /run/booted-system').catch((silent: unknown) => silent)
  if (asked instanceof Error) {
    if (asked instanceof KernelFailed && asked.how === 'oopsed') throw asked
    if (!qemuOf(vm.vm)) throw thrown
    return 'it neither came up nor came back'
  }
  return `${(asked as Ran).stdout.trim()} was booted instead`
}

/** Reboots a VM into a toplevel, as a check. @returns seconds to its SSH */
export const boots = (
  scene: Scene,
  vm: Machine,
  name: string,
  toplevel: string,
  limit = 120,
): Promise<number> => rebooted(scene, vm, name, () => vm.reboot({ limit, until: booted(toplevel) }))

/**
 * Reboots a VM into its trial, which must fail and lead back to golden.
 * @param limit seconds, on KVM, until golden is back
 */
export async function failsTrial(
  scene: Scene,
  vm: Machine,
  trial: string,
  reason: RegExp,
  limit?: number,
): Promise<void> {
  const seconds = await boots(scene, vm, 'golden boots again', scene.start(vm), limit)
  await comesBack(scene, vm, trial, reason, seconds)
}

/** `Machine.until` as a check, which fails if the guest is well but the condition does not hold in time. */
export async function comes(
  { check, must }: Scene,
  vm: Machine,
  name: string,
  limit: number,
  condition: string,
): Promise<string> {
  const said = await vm.until(name, limit, condition).catch(async (thrown) => {
    if (!(thrown instanceof TookTooLong)) throw thrown
    await vm.agent('true')
    must(name, 'held', `not within ${limit * vm.patience} s`)
    throw thrown
  })
  check(name, 'held', 'held')
  return said
}

/** Waits until a booted generation has become golden, and checks that its files are complete. */
export async function becomesGolden(scene: Scene, vm: Machine, toplevel: string): Promise<void> {
  const ask = `[ "$(readlink -f /nix/var/nix/gcroots/golden-generation)" = ${toplevel} ] && ${validated} && show-golden
    code=$?; sed 's/^/on trial: /' /var/lib/golden-generation/trial.json 2>/dev/null; exit $code`
  const said = await comes(scene, vm, 'the new generation is pinned', 90, ask)
  scene.check('the files of the new golden are complete', /^golden: (?!.*PROBLEM)/s, said)
  scene.check('the new golden is no longer on trial', /^(?!.*\non trial: \{)/s, said)
}

/** Holds once the boot was validated and all that follows from this is done. */
export const validated = 'systemctl is-active --quiet golden-boot-validation.service'

/** Holds in a boot of this toplevel; boots of others may come before it. */
export const booted = (toplevel: string): string =>
  `[ "$(readlink -f /run/booted-system)" = ${toplevel} ]`

/**
 * Checks that a VM does not restart: its QEMU process stays the same.
 * @param seconds on KVM
 */
export async function staysDown(scene: Scene, vm: Machine, seconds: number): Promise<void> {
  const pid = qemuOf(vm.vm)?.pid
  if (pid === undefined) throw new Failure(`\`${vm.host}\` is off`)
  const until = performance.now() + seconds * vm.patience * 1000
  await counting(`${vm.host} must not start again`, seconds * vm.patience, scene.say, async () => {
    while (performance.now() < until && qemuOf(vm.vm)?.pid === pid) await pause(1)
  })
  scene.check('the host does not reboot again and again', pid, qemuOf(vm.vm)?.pid)
}
