import { Failure, usage as usageFailure, type ExitCode } from '../lib/failure.ts'
import type { Under } from '../lib/fault/case.ts'
import { faultHelp, faultOptions, verbs } from '../lib/fault/request.ts'
import { nearest, unknown } from '../lib/nearest.ts'
import { scenario, type Case, type Family, type Scene } from '../lib/scenario/scenario.ts'
import { main, type Args, type Task } from '../lib/task.ts'
import { note, seen, upgrades } from '../lib/scenario/upgrade.ts'

const offline = { upgrade: /^offline$/, sync: /^offline$/ }
const works = { upgrade: /^upgraded$/, sync: /^synced$/ }
const either = { upgrade: /^(upgraded|offline)$/, sync: /^(synced|offline)$/ }
// damage that the checksums of TCP miss may look to git like an answer of the remote, so it may also fail
const damaged = {
  upgrade: /^(upgraded|offline|failed)$/,
  sync: /^(synced$|offline$|failed: Cannot (fetch|push))/,
}
const on = { link: 'uplink', direction: 'both' } as const
const lan = { link: 'lan', direction: 'both' } as const

const table: Under[] = [
  promise(
    'cut',
    'the cable is unplugged: offline, nothing changes',
    { ...on, kind: 'cut' },
    offline,
  ),
  promise(
    'flap',
    'the cable is unplugged and plugged in again and again',
    { ...on, kind: 'flap', down: 2, up: 3 },
    either,
  ),
  promise(
    'delay',
    '300 ms of delay each way: upgrade and sync succeed',
    { ...on, kind: 'delay', value: 300 },
    works,
  ),
  promise(
    'jitter',
    'packets overtake each other: upgrade and sync succeed',
    { ...on, kind: 'jitter', value: 100 },
    works,
  ),
  promise('loss', '20 % of packets are lost each way', { ...on, kind: 'loss', value: 20 }, either),
  promise(
    'duplicate',
    'half of the packets arrive twice: upgrade and sync succeed',
    { ...on, kind: 'duplicate', value: 50 },
    works,
  ),
  promise(
    'corrupt',
    '10 % of packets are damaged each way',
    { ...on, kind: 'corrupt', value: 10 },
    damaged,
  ),
  promise(
    'rate',
    '128 kbit/s: slower, but upgrade and sync succeed',
    { ...on, kind: 'rate', value: 128 },
    works,
  ),
  promise(
    'one-way-out',
    'no packet gets out: offline',
    { ...on, kind: 'one-way', direction: 'out' },
    offline,
  ),
  promise(
    'one-way-in',
    'no packet gets in: offline',
    { ...on, kind: 'one-way', direction: 'in' },
    offline,
  ),
  promise('dns', 'the name server does not answer: offline', { ...on, kind: 'dns' }, offline),
  promise(
    'lan-cut',
    'the cable to the other VM is unplugged: upgrade and sync succeed',
    { ...lan, kind: 'cut' },
    works,
    2,
  ),
  promise(
    'partition',
    'the VMs cannot reach each other: upgrade and sync succeed',
    { ...lan, kind: 'partition' },
    works,
    2,
  ),
]

function promise(
  name: string,
  title: string,
  fault: Under['fault'],
  meanwhile: Pick<Under, 'upgrade' | 'sync'>,
  hosts: 1 | 2 = 1,
): Under {
  return { name, title: `${title}; once healed, it catches up`, fault, ...meanwhile, hosts }
}

/** A fault that nobody heals: the upgrade finds no network, and the one after the lease has run out does. */
async function lease(scene: Scene): Promise<void> {
  const { inject, list, prove } = await import('../lib/fault/lease.ts')
  const { vm, world, check } = scene
  await world.config.commit(note(vm, 'two'), 'Two')
  const said = scene.fault('one-way out on uplink', vm.host)
  const [fault] = await inject({
    kind: 'one-way',
    link: 'uplink',
    direction: 'out',
    hosts: [vm.host],
    // part of the fetch's time limits is fixed, however fast the machine is
    lease: 40 + 10 * vm.patience,
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
  check('the commit was deployed', 'two', outcome === 'upgraded' ? await seen(vm) : 'nothing')
}

/** A pulled cable stays out over a reboot, and a boot without network still counts as good. */
async function reboot(scene: Scene): Promise<void> {
  const { begin } = await import('../lib/fault/case.ts')
  const { list } = await import('../lib/fault/lease.ts')
  const { vm, check } = scene
  const end = await begin(scene, [vm], { ...on, kind: 'cut' })
  const seconds = await vm.reboot()
  scene.event(`${vm.host} booted with its cable out`, { host: vm.host, seconds })
  // without a golden generation nothing validates boots
  if (scene.golden(vm)) {
    await vm.until(
      'the boot to be validated',
      90,
      'systemctl is-active --quiet golden-boot-validation.service',
    )
  }
  const [still] = await list(vm.vm)
  check('the cable is still out', 'active', still?.state)
  const carrier = await vm.ask('cat /sys/class/net/uplink/carrier')
  check('the guest sees no carrier', '0', carrier)
  await upgrades(scene, vm, { outcome: 'offline' })
  await end()
  await upgrades(scene, vm, { outcome: /^(up-to-date|upgraded)$/ })
}

export const family: Family = {
  name: 'chaos-network',
  describe:
    'Break a network link for a while, or check that upgrade and dotfile sync survive every fault',
  cases: [
    ...table.map((under): Case => ({
      name: under.name,
      title: under.title,
      promise: 'offline',
      hosts: under.hosts,
      limit: under.hosts === 2 ? 360 : 240,
      ends: 'main',
      run: async (scene) => (await import('../lib/fault/case.ts')).underFault(scene, under),
    })),
    {
      name: 'lease',
      title: 'nobody heals the fault: it ends by itself when its lease runs out',
      promise: 'offline',
      limit: 240,
      ends: 'main',
      run: lease,
    },
    {
      name: 'reboot',
      title: 'the host reboots with its cable unplugged: the boot is still validated as good',
      promise: 'offline',
      limit: 240,
      run: reboot,
    },
  ],
}

const scenarios = scenario(family)
const options = { ...faultOptions, ...scenarios.options }

export const task: Task = {
  ...scenarios,
  usage: '[what..]',
  positionals: {
    what: {
      describe:
        'A fault to inject, `heal` or `list`, then VMs; only VMs: run the scenarios on them',
      array: true,
    },
  },
  options,
  parts: { Faults: faultHelp },
  under: [
    'tc qdisc add dev uplink root netem …   in the guest, by a unit that removes it',
    'QMP set_link uplink-nic   cut and flap, by the keeper',
    'ping, getent, TCP connect   measure before, during and after the fault',
    ...scenarios.under,
  ],
  examples: [
    ['tsx tasks/chaos-network.ts delay sorrow --link uplink --ms 100', 'A fault for 60 s'],
    ['tsx tasks/chaos-network.ts heal', 'Heal every link, recorded or not'],
    ...scenarios.examples,
  ],
  run: async (args: Args): Promise<ExitCode | void> => {
    const [verb, ...rest] = (args['what'] ?? []) as string[]
    const named = (args['host'] ?? []) as string[]
    if (verb !== undefined && verbs.includes(verb)) {
      const { runFault } = await import('../lib/fault/command.ts')
      return await runFault(verb, { ...args, host: [...rest, ...named] }, Object.keys(options))
    }
    const foreign = Object.keys(faultOptions).find(
      (option) => option !== 'host' && args[option] !== undefined,
    )
    if (foreign) {
      const help = `tsx tasks/chaos-network.ts --help lists them`
      if (verb !== undefined) throw unknown('a fault', verb, verbs, help)
      throw usageFailure(`Cannot use --${foreign} without a fault`, help)
    }
    const host = [...(args['what'] ?? []), ...named]
    return await scenarios.run({ ...args, host }).catch((thrown: unknown) => {
      throw orFault(thrown, verb)
    })
  },
}

/** A word that names no host may be a misspelt fault. */
function orFault(thrown: unknown, word = ''): unknown {
  const [near] = nearest(word, verbs)
  if (!near || !(thrown instanceof Failure) || !thrown.message.includes(`host \`${word}\``))
    return thrown
  return usageFailure(thrown.message, `The nearest fault is ${near}; ${thrown.detail.hint}`)
}

await main(import.meta, task)
