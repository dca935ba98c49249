import { Failure } from '../failure.ts'
import { fromHome } from '../lab-settings.ts'
import type { StorePath } from '../nix/store.ts'
import { TookTooLong } from '../retry.ts'
import type { ExecOptions } from '../ssh/commands.ts'
import type { Changes } from './remote.ts'
import { startToEnd } from '../vm/upgrade.ts'
import { NoJson } from './agent-json.ts'
import { parseStatus, type Deployed, type Upgraded, type UpgradeStatus } from './upgrade-unit.ts'
import type { Scene, Value } from './family.ts'
import type { Machine } from './machine.ts'
import { phaseOf, profileOf } from './subject.ts'
import { hostModule } from './host-module.ts'

/** Changes that give a host, beside its own files, the text of a NixOS module. */
export const module = (vm: Machine, text: string): Changes => ({ [hostModule(vm.host)]: text })

/** What git leaves in a file that conflicts. */
export const markers = '<<<<<<< ours\none\n=======\ntwo\n>>>>>>> theirs\n'

/** A harmless change that shows in /etc/lab-case. */
export const note = (vm: Machine, text: string): Changes => module(vm, `{ ${noted(text)} }\n`)

/** The same within a module. */
export const noted = (text: string): string =>
  `environment.etc."lab-case".text = ${JSON.stringify(text)};`

/**
 * Changes that give the agent of a host these options.
 * @param more configuration of the host, with `lib` and `pkgs` in scope
 */
export const withOptions = (vm: Machine, options: string, more = ''): Changes =>
  module(vm, optionsModule(options, more))

/** The same as the text of a module. */
export const optionsModule = (options: string, more = ''): string =>
  `{ lib, pkgs, ... }: { myModules.services.autoUpgrade = { ${options} }; ${more} }\n`

/** Runs a shell script as a host's user, in the clone of the flake. @returns its output */
export const cloneOf =
  ({ world }: Scene, vm: Machine) =>
  (script: string, options?: ExecOptions): Promise<string> =>
    vm.askUser(`cd ${fromHome(world.paths.flake)} && ${script}`, options)

/** The text that `note` or the like has put into a file of /etc; `none` where there is no such file. */
export const seen = (vm: Machine, name = 'lab-case'): Promise<string> =>
  vm.ask(`cat /etc/${name} 2>/dev/null || echo none`)

/** A program of coreutils, for a module that has `pkgs`: each kind of guest has it in another place. */
export const program = (command: string): string => `\${pkgs.coreutils}/bin/${command}`

/** For a module that has `pkgs`: a unit that a switch starts. */
export const oneshot = (name: string, command: string, more = ''): string =>
  `systemd.services.${name} = { wantedBy = [ "multi-user.target" ]; serviceConfig = { Type = "oneshot"; ${more} ExecStart = "${program(command)}"; }; };`

/** A unit that fails when it is started. */
export const failingUnit = `{ pkgs, ... }: { ${oneshot('lab-bad', 'false')} }\n`

/**
 * A unit that is restarted whenever it ends, without limit.
 * @param command of coreutils
 * @param pause seconds in between
 */
export const restartingUnit = (name: string, command: string, pause: number): string =>
  `{ pkgs, ... }: { ${restarting(name, command, pause)} }\n`

/** The same for a module that has `pkgs`. */
export const restarting = (name: string, command: string, pause: number): string =>
  `systemd.services.${name} = { wantedBy = [ "multi-user.target" ]; unitConfig.StartLimitIntervalSec = 0; serviceConfig = { ExecStart = "${program(command)}"; Restart = "always"; RestartSec = ${pause}; }; };`

export interface Wanted {
  outcome: string | RegExp
  reason?: RegExp
  phase?: string
  /** Seconds that it may take, on KVM; default 90. */
  limit?: number
  /** Additional seconds that are the same on every machine, such as a time limit of the agent. */
  waits?: number
  /** What it must report as not restored. Default: nothing. */
  left?: string
}

/** Runs the upgrade to its end and checks its status. */
export async function upgrades(scene: Scene, vm: Machine, wanted: Wanted): Promise<UpgradeStatus> {
  const { limit = 90, waits = 0, left = '' } = wanted
  const name = (what: string): string => `${vm.host}'s upgrade: ${what}`
  const { status, result, log } = await vm.upgrade({ limit, waits }).catch(async (thrown) => {
    if (thrown instanceof NoJson) scene.must(name('status'), 'JSON', thrown.message)
    if (!(thrown instanceof TookTooLong)) throw thrown
    // if the guest agent answers, the upgrade is at fault; if it does not, nothing can be judged
    const { stdout } = await vm.agent(stillAt(vm), { allow: 'any' })
    scene.must(name('ends in its time'), 'ended', `${stdout.trim()} after ${limit} s`)
    throw thrown
  })
  scene.check(name('ends in its time'), 'ended', 'ended')
  if (vm.subject.status === undefined) return seenOf(scene, vm, wanted, { result, log })
  const found = (value: Value | undefined): Value | undefined => value ?? undefined
  if (!scene.check(name('outcome'), wanted.outcome, found(status?.outcome))) scene.event(log)
  if (wanted.reason) scene.check(name('reason'), wanted.reason, found(status?.reason))
  if (wanted.phase) {
    scene.check(name('phase'), phaseOf(vm.subject, wanted.phase), found(status?.phase))
  }
  const outcome = status?.outcome ?? ''
  const well = [...deployed, ...waiting]
  scene.check(name('the unit ends'), well.includes(outcome) ? 'success' : 'exit-code', result)
  scene.check(name('not put back'), left, status?.notRestored.join(', '))
  if (!status) throw new Failure(`${name('status')}: it has written none`)
  return status
}

/**
 * An upgrade that may shut out SSH, run through the guest agent.
 * @returns the result of its unit, and its status, where it writes one
 * @throws NoJson when its status cannot be read
 */
export async function unreachedUpgrade(vm: Machine): Promise<Pick<Upgraded, 'status' | 'result'>> {
  const { unit, status = '/run/lab-no-status' } = vm.subject
  vm.disconnect()
  // a status that an earlier run has written does not count
  const stamp = `$(stat -c %i.%Y ${status} 2>/dev/null)`
  const script = `before=${stamp}
    ${startToEnd(`${unit}.service`)}
    systemctl show --value -p Result ${unit}.service
    [ "$before" = "${stamp}" ] || cat ${status}`
  const { stdout } = await vm.agent(script, { limit: 200 })
  const [result = '', ...said] = stdout.split('\n')
  return { result, status: parseStatus(said.join('\n'), status) }
}

/** As `upgrades`, for one that must succeed. @returns what it deployed */
export async function deploys(
  scene: Scene,
  vm: Machine,
  wanted: Partial<Wanted> = {},
): Promise<Deployed> {
  return deployedBy(scene, await upgrades(scene, vm, { outcome: 'upgraded', ...wanted }))
}

/** As `deploys`, for a generation that must still run at the end of the case. */
export async function deploysForGood(
  scene: Scene,
  vm: Machine,
  wanted: Partial<Wanted> = {},
): Promise<Deployed> {
  const deployed = await deploys(scene, vm, wanted)
  scene.ends(vm, deployed.toplevel)
  return deployed
}

/** What an upgrade's status names as deployed; if it names nothing, the case ends. */
export function deployedBy({ must }: Scene, status: UpgradeStatus | undefined): Deployed {
  must('the upgrade names what it deployed', /^\/nix\/store\//, status?.to?.toplevel)
  return status!.to!
}

/** Outcomes that leave the host on the newest commit, and those that leave it as it was without a failure. */
const deployed = ['upgraded', 'up-to-date']
const waiting = ['offline', 'locked', 'skipped-known-bad']

/**
 * Judges an upgrade without a status by what is seen: the result of its unit, the running system and the profile. An
 * upgrade that has to deploy must have deployed; one that has to fail must not end with success.
 */
async function seenOf(
  scene: Scene,
  vm: Machine,
  { outcome }: Wanted,
  { result, log }: { result: string; log: string },
): Promise<UpgradeStatus> {
  const name = (what: string): string => `${vm.host}'s upgrade: ${what}`
  const links = `${profileOf(vm.subject)}; readlink -f /run/current-system "$profile"; readlink "$profile"`
  const [running = '', profile = '', link = ''] = (await vm.root(links)).stdout.split('\n')
  const main = await scene.wanted(vm).catch(() => undefined)
  const may = (words: string[]): boolean =>
    words.some((one) => (outcome instanceof RegExp ? outcome.test(one) : outcome === one))
  let held = true
  if (may(deployed) && !may(waiting)) {
    held = scene.check(name('runs what the branch has'), main ?? 'a system', running)
    held = scene.check(name('the unit ends'), 'success', result) && held
  } else if (!may(deployed) && !may(waiting)) {
    held = scene.check(name('the unit ends'), /^(?!success$)./, result)
  }
  if (!held) scene.event(log)
  const to: Deployed = {
    commit: '',
    toplevel: profile as StorePath,
    generation: Number(/\d+/.exec(link)?.[0]),
  }
  // the outcome that the lab's agent would report for what was seen
  const word = running === main ? 'upgraded' : may(waiting) ? 'offline' : 'failed'
  return {
    ...{ phase: '', outcome: word, reason: '', host: vm.host, mode: '', from: null, to },
    ...{ notRestored: [], checks: [], started: '', finished: null },
  }
}

const stillAt = ({
  subject,
}: Machine): string => `systemctl show --value -p ActiveState ${subject.unit}.service
${subject.status ? `grep -o '"phase":"[a-z]*"' ${subject.status}` : ''}`
