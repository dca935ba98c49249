import { Exit, Failure, type ExitCode } from '../lib/failure.ts'
import { labSettings } from '../lib/lab-settings.ts'
import { guestOf } from '../lib/nix/guest.ts'
import { someVms } from '../lib/nix/hosts.ts'
import { machine } from '../lib/scenario/machine.ts'
import { counting } from '../lib/retry.ts'
import { connected, type Ssh } from '../lib/ssh/ssh.ts'
import { runLanes, type Lane, type Step } from '../lib/steps.ts'
import { green, red, table } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'
import { sshTarget } from '../lib/vm/identity.ts'
import { serveLab } from '../lib/vm/remotes.ts'
import { bootOf, upgradeNow, type Ended } from '../lib/vm/upgrade.ts'
import { qemuOf, withVms, type Vm } from '../lib/vm/vm.ts'

export const name = 'upgrade-test-vm'
export const describe = "Start a VM's upgrade now, follow it, and show its outcome"
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; default: all', array: true } }
export const options = {
  reboot: {
    type: 'boolean',
    describe: 'Reboot afterwards, to try the generation that is on trial',
  },
  json: { type: 'boolean', describe: 'Print data instead of a table' },
} as const
export const under = [
  'systemctl start nix-local-upgrade.service   in the guest; lab.toml may name another unit',
  'journalctl --follow --unit …                its log meanwhile',
  '/var/lib/nix-local-upgrade/status.json, show-boot-status --json',
]
export const examples: [string, string][] = [
  ['just upgrade-test-vm', 'Every VM, after just publish'],
  ['just upgrade-test-vm sorrow --reboot', 'Also check that it boots and becomes golden'],
]

/** Time limit of an upgrade on a machine with KVM, in seconds. */
const limit = 900

export interface Upgraded extends Ended {
  host: string
  seconds: number
}

export async function run(args: Args): Promise<ExitCode> {
  const vms = someVms(args['host'])
  const off = vms.find((vm) => !qemuOf(vm))
  if (off) {
    throw new Failure(`Cannot upgrade \`${off.host}\`: it is not running`, {
      hint: `just deploy-test-vm ${off.host}`,
    })
  }
  return printUpgraded(await upgradeVms(vms, args), Boolean(args['json']))
}

/** Upgrades VMs in parallel, each under its lock. @throws Failure naming a VM whose upgrade did not end */
export async function upgradeVms(vms: Vm[], { reboot, json }: Args): Promise<Upgraded[]> {
  const { preflight } = await import('../lib/vm/ground.ts')
  const { patience } = (await preflight(guestOf(vms[0]!))).accelerator
  const upgraded: Upgraded[] = []
  const hosts = vms.map(({ host }) => host)
  const lanes = vms.map((vm) => lane(vm, patience, Boolean(reboot), upgraded))
  await withVms(hosts, 'upgrade', () => runLanes(lanes, { quiet: Boolean(json) }))
  return hosts.flatMap((host) => upgraded.find((one) => one.host === host) ?? [])
}

const lane = (vm: Vm, patience: number, reboot: boolean, into: Upgraded[]): Lane<Vm> => ({
  title: vm.host,
  context: vm,
  steps: [
    {
      title: 'upgrade',
      would: () => [],
      run: async (_, say) => {
        serveLab(vm.host)
        const from = performance.now()
        let at = 'start'
        const told = (line: string): void => {
          const [, phase] = /: phase: ([\w-]+)$/.exec(line) ?? []
          at = phase ?? `${at.split(':')[0]}: ${line}`
        }
        const most = limit * patience
        const upgrade = (root: Ssh) =>
          counting(
            () => at,
            most,
            say,
            () => upgradeNow(root, most, told),
          )
        const ended = await connected(sshTarget(vm, 'root'), upgrade)
        into.push({ ...ended, host: vm.host, seconds: (performance.now() - from) / 1000 })
      },
    },
    ...(reboot ? [rebootStep(vm, patience, into)] : []),
  ],
})

const rebootStep = (vm: Vm, patience: number, into: Upgraded[]): Step<Vm> => ({
  title: 'reboot',
  would: () => [],
  skip: () =>
    of(vm, into).golden === 'golden' && 'the running generation has booted, and is golden',
  run: async (_, say) => {
    const tried = of(vm, into)
    const inHand = machine(vm, { patience, argv: [], tag: '', note: () => 0, say })
    await inHand.reboot({ limit: 120 })
    // a generation that fails its trial reboots by itself, into golden
    await inHand.until('the boot to be judged', 240, judged)
    const booted = await bootOf(inHand.root)
    inHand.retire()
    const fellBack = booted.toplevel !== tried.toplevel
    const outcome = { outcome: 'trial-failed', held: false, reason: booted.lastFailed }
    Object.assign(tried, booted, fellBack && outcome)
  },
})

const of = (vm: Vm, upgraded: Upgraded[]): Upgraded =>
  upgraded.find(({ host }) => host === vm.host)!

/** True once this boot is validated, or is golden's; always true on a host without a golden generation. */
const judged = `command -v show-boot-status >/dev/null || exit 0
case $(systemctl show --property=ActiveState --value golden-boot-validation.service) in
  active) ;;
  failed) [ "$(readlink -f /run/booted-system)" = "$(readlink -f /nix/var/nix/gcroots/golden-generation)" ] ;;
  *) false ;;
esac`

/** Prints the outcomes. @returns 1 if a VM was neither upgraded nor up to date */
export async function printUpgraded(upgraded: Upgraded[], json: boolean): Promise<ExitCode> {
  if (json) console.log(JSON.stringify(upgraded, null, 2))
  else {
    const rows = upgraded.map((one) => [
      one.host,
      one.held ? green(one.outcome) : red(one.outcome),
      one.generation,
      one.golden,
      one.seconds.toFixed(0),
      one.reason,
    ])
    console.log(table([['host', 'outcome', 'generation', 'golden', 'seconds', 'reason'], ...rows]))
    const { units } = await labSettings()
    for (const { host } of upgraded.filter(({ held }) => !held))
      console.log(`what it said: just logs ${host} ${units.upgrade}`)
  }
  return upgraded.every(({ held }) => held) ? Exit.held : Exit.checkFailed
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
