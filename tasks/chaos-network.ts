import { readHome, setLine, syncByUnit, type SyncStatus } from '../lib/dotfile-sync.ts'
import { usage as usageFailure, type ExitCode } from '../lib/failure.ts'
import { faultHelp, faultOptions, runFault, verbs } from '../lib/fault-command.ts'
import { heal, inject, list, prove } from '../lib/fault-lease.ts'
import type { Request } from '../lib/fault.ts'
import { scenario, type Case, type Family, type Machine, type Scene } from '../lib/scenario.ts'
import { main, type Args, type Task } from '../lib/task.ts'
import { note, seen, upgrades } from '../lib/upgrade-case.ts'

type Weather = Omit<Request, 'hosts' | 'lease'>

interface Under {
  name: string
  title: string
  fault: Weather
  /** What the upgrade, and the dotfile sync in it, come to meanwhile. */
  upgrade: RegExp
  sync: RegExp
  hosts?: 1 | 2
}

const offline = { upgrade: /^offline$/, sync: /^offline$/ }
const works = { upgrade: /^upgraded$/, sync: /^synced$/ }
const either = { upgrade: /^(upgraded|offline)$/, sync: /^(synced|offline)$/ }
const on = { link: 'uplink', direction: 'both' } as const

const table: Under[] = [
  {
    name: 'cut',
    title: 'the cable is out: offline, nothing changed',
    fault: { ...on, kind: 'cut' },
    ...offline,
  },
  {
    name: 'flap',
    title: 'the cable is in and out',
    fault: { ...on, kind: 'flap', down: 2, up: 3 },
    ...either,
  },
  {
    name: 'delay',
    title: 'each packet 300 ms later each way: slower, and it holds',
    fault: { ...on, kind: 'delay', value: 300 },
    ...works,
  },
  {
    name: 'jitter',
    title: 'packets overtake each other: it holds',
    fault: { ...on, kind: 'jitter', value: 100 },
    ...works,
  },
  {
    name: 'loss',
    title: '20 % of the packets lost each way',
    fault: { ...on, kind: 'loss', value: 20 },
    ...either,
  },
  {
    name: 'duplicate',
    title: 'half of all packets come twice: it holds',
    fault: { ...on, kind: 'duplicate', value: 50 },
    ...works,
  },
  {
    name: 'corrupt',
    title: '10 % with a wrong bit each way: nothing wrong is ever deployed',
    fault: { ...on, kind: 'corrupt', value: 10 },
    ...either,
  },
  {
    name: 'rate',
    title: '128 kbit/s: slower, and it holds',
    fault: { ...on, kind: 'rate', value: 128 },
    ...works,
  },
  {
    name: 'one-way-out',
    title: 'nothing gets out: offline, nothing changed',
    fault: { ...on, kind: 'one-way', direction: 'out' },
    ...offline,
  },
  {
    name: 'one-way-in',
    title: 'nothing gets in: offline, nothing changed',
    fault: { ...on, kind: 'one-way', direction: 'in' },
    ...offline,
  },
  {
    name: 'dns',
    title: 'the remote has no address: offline, nothing changed',
    fault: { ...on, kind: 'dns' },
    ...offline,
  },
  {
    name: 'lan-cut',
    title: 'the cable between the VMs is out: the upgrade does not need it',
    fault: { kind: 'cut', link: 'lan', direction: 'both' },
    hosts: 2,
    ...works,
  },
  {
    name: 'partition',
    title: 'the VMs do not hear each other: both upgrades hold',
    fault: { kind: 'partition', link: 'lan', direction: 'both' },
    hosts: 2,
    ...works,
  },
]

const own = '.config/lab/one.conf'
const labrc = '.labrc'

/** A commit and a dotfile from afar, an edit here; then the fault, the upgrade, and the catching up. */
async function underFault(scene: Scene, { fault, upgrade, sync }: Under): Promise<void> {
  const { vm, vms, world, check } = scene
  const mine = fault.kind === 'partition' ? vms : [vm]
  const text = Object.assign({}, ...vms.map((each) => note(each, 'two'))) as ReturnType<typeof note>
  const commit = await world.config.commit(text, 'Two')
  const afar = (file: string): string => file.replace('one 12\n', 'one 12, from afar\n')
  await world.dotfiles.commit({ 'dot_config/lab/one.conf': afar }, 'From afar')
  for (const each of mine) await each.user(setLine(labrc, edited(each), `of ${each.host}`))

  const end = await begin(scene, mine, fault)
  for (const each of mine) {
    const { outcome } = await upgrades(scene, each, { outcome: upgrade })
    const status = await lastSync(each)
    check(`dotfiles of ${each.host} meanwhile`, sync, said(status))
    if (outcome === 'offline') {
      check(`${each.host} is unchanged`, 'none', await seen(each))
      check(`it runs what it ran`, scene.start(each), await each.running())
    }
  }
  await end()

  for (const each of vms) {
    const { outcome } = (await each.status()) ?? {}
    const behind = !mine.includes(each) || outcome !== 'upgraded'
    if (behind) await upgrades(scene, each, { outcome: 'upgraded' })
    const late = !/^(synced|up-to-date)$/.test(said(await lastSync(each)))
    if (late)
      check(`dotfiles of ${each.host} later`, 'synced', said((await syncByUnit(each)).status))
    const { to } = (await each.status()) ?? {}
    check(`${each.host} caught up`, commit, to?.commit)
    check(`${each.host} has what the commit brings`, 'two', await seen(each))
    check(`${each.host} has the edit from afar`, /^one 12, from afar$/m, await readHome(each, own))
  }
  const trunk = (await world.dotfiles.read('dot_labrc')) ?? ''
  for (const each of mine)
    check(
      `the trunk has the edit of ${each.host}`,
      `of ${each.host}`,
      trunk.split('\n')[edited(each) - 1],
    )
}

/** A lease that nobody ends: the upgrade is refused by the network, and the next one is not. */
async function lease(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  await world.config.commit(note(vm, 'two'), 'Two')
  const said = scene.fault('one-way out on uplink', vm.host)
  const [fault] = await inject({
    kind: 'one-way',
    link: 'uplink',
    direction: 'out',
    hosts: [vm.host],
    lease: 25 * vm.patience,
  })
  const { holds, text } = await prove([fault!])
  said.bit(holds, text)
  await upgrades(scene, vm, { outcome: 'offline' })
  await vm.until(
    'the lease to end by itself',
    60,
    '! systemctl is-active --quiet lab-fault-uplink.service && ! tc qdisc show dev uplink | grep -q clsact',
  )
  const left = await list(vm.vm)
  said.healed(
    left.length === 0,
    left.map(({ name }) => name).join() || 'by itself: no rule is left',
  )
  const { outcome } = await upgrades(scene, vm, { outcome: 'upgraded' })
  check('it was deployed', 'two', outcome === 'upgraded' ? await seen(vm) : 'nothing')
}

/** A pulled cable stays out over a reboot, and a boot with no network is as good as any. */
async function reboot(scene: Scene): Promise<void> {
  const { vm, check } = scene
  const end = await begin(scene, [vm], { ...on, kind: 'cut' })
  const seconds = await vm.reboot()
  scene.event(`${vm.host} booted with its cable out`, { host: vm.host, seconds })
  await vm.until(
    'the boot to be validated',
    90,
    'systemctl is-active --quiet golden-boot-validation.service',
  )
  const [still] = await list(vm.vm)
  check('the cable is still out', 'active', still?.state)
  const carrier = await vm.root('cat /sys/class/net/uplink/carrier')
  check('the guest sees no carrier', '0', carrier.stdout.trim())
  await upgrades(scene, vm, { outcome: 'offline' })
  await end()
  await upgrades(scene, vm, { outcome: 'up-to-date' })
}

export const family: Family = {
  name: 'chaos-network',
  describe: 'Fault a network for a while, or see upgrade and dotfile sync live through every fault',
  cases: [
    ...table.map((under): Case => ({
      name: under.name,
      title: under.title,
      hosts: under.hosts,
      limit: under.hosts === 2 ? 360 : 240,
      ends: 'main',
      run: (scene) => underFault(scene, under),
    })),
    {
      name: 'lease',
      title: 'nobody heals the fault: it heals itself',
      limit: 240,
      ends: 'main',
      run: lease,
    },
    { name: 'reboot', title: 'a reboot with the cable out is validated', limit: 240, run: reboot },
  ],
}

/** Injects and proves a fault; what it gives heals it and proves that. */
async function begin(
  { fault: announce, patience }: Scene,
  vms: Machine[],
  weather: Weather,
): Promise<() => Promise<void>> {
  const hosts = vms.map(({ host }) => host)
  const announced = announce(`${weather.kind} on ${weather.link}`, hosts[0])
  const faults = await inject({ ...weather, hosts, lease: 240 * patience })
  const { holds, text } = await prove(faults)
  announced.bit(holds, text)
  return async () => {
    const lines = await Promise.all(vms.map(({ vm }) => heal(vm, [weather.link])))
    // a line for each link that had one: none means that it was gone before
    announced.healed(
      lines.every((each) => each.length === 1),
      lines.flat().join('; '),
    )
  }
}

const edited = ({ vm }: Machine): number => (vm.slot % 2 === 0 ? 6 : 18)

async function lastSync(vm: Machine): Promise<SyncStatus> {
  const { stdout } = await vm.root('cat /var/lib/chezmoi-sync/status.json')
  return JSON.parse(stdout) as SyncStatus
}

const said = ({ outcome, reason }: SyncStatus): string =>
  reason && outcome !== 'offline' ? `${outcome}: ${reason}` : (outcome ?? 'nothing')

const scenarios = scenario(family)

export const task: Task = {
  ...scenarios,
  usage: '[what..]',
  positionals: {
    what: {
      describe: 'A fault to inject, `heal` or `list`; else VMs to run the scenarios on',
      array: true,
    },
  },
  options: { ...faultOptions, ...scenarios.options },
  under: [
    ...faultHelp,
    '',
    'tc qdisc add dev uplink root netem …   in the guest, under a unit that takes it away',
    'QMP set_link uplink-nic   cut and flap, by the keeper',
    'ping, getent, TCP connect   measure before, under and after it',
    ...scenarios.under,
  ],
  examples: [
    ['tsx tasks/chaos-network.ts delay --link uplink --vm sorrow --ms 100', 'A fault for 60 s'],
    ['tsx tasks/chaos-network.ts heal', 'Heal every link, recorded or not'],
    ...scenarios.examples,
  ],
  run: async (args: Args): Promise<ExitCode | void> => {
    const [verb, ...rest] = (args['what'] ?? []) as string[]
    if (verb === undefined || !verbs.includes(verb)) {
      const foreign = Object.keys(faultOptions).find((option) => args[option] !== undefined)
      if (foreign) throw usageFailure(`Cannot use --${foreign} without a fault`, verbs.join(', '))
      return await scenarios.run({ ...args, host: args['what'] })
    }
    if (rest.length > 0)
      throw usageFailure(`Cannot read \`${rest.join(' ')}\` after ${verb}`, '--vm')
    return await runFault(verb, args)
  },
}

await main(import.meta, task)
