import { attempt, Failure, onFailure } from '../failure.ts'
import { type Fault, type Link, type RoundTrip } from './fault.ts'
import { activeFaults } from './record.ts'
import { counters, gitAnswers, nameIsFound, ping, watchCarrier, type Pinged } from './probe.ts'
import { judgePing, payload, pingFlags, roundTrip, type Proof } from './proof.ts'
import { withGuest, type GuestAgent } from '../vm/guest-agent.ts'
import { waitFor } from '../retry.ts'
import { knownVms, macs, qemuOf, theVm, type Vm } from '../vm/vm.ts'

type Place = Pick<Fault, 'host' | 'link' | 'peer'>

/** What a link is measured against: QEMU's own router on uplink, another VM on lan. */
interface Target {
  address: string
  mac: string
  vm?: Vm
}

const few = '-i 0.02 -c 20'
const lost = '-i 0.1 -c 8 -W 1'

/**
 * The round trip over a link before its fault, with the same payload as the measurement of the fault.
 * @throws Failure when the link already loses packets, or there is nothing to measure against
 */
export async function before(fault: Omit<Place, 'peer'> & Partial<Fault>): Promise<RoundTrip> {
  const there = targetOf(fault)
  if (there.vm && activeFaults(there.vm).some(({ link }) => link === fault.link)) {
    throw new Failure(
      `Cannot measure ${fault.link} of \`${fault.host}\`: \`${there.vm.host}\`, the VM to measure it against, has a fault itself`,
      { hint: 'tsx tasks/chaos-network.ts heal' },
    )
  }
  return await withGuest(theVm(fault.host), async (guest) => {
    const size = fault.kind === 'rate' ? ` -s ${payload(fault.value ?? 0)}` : ''
    const all = ({ received, sent }: Pinged): boolean => sent > 0 && received === sent
    let seen = await ping(guest, there.address, `${few}${size}`)
    // ping waits only 20 ms for the last replies if the others came fast, and a busy machine delays some
    // for longer: try again, as a link that really loses packets will lose some again
    for (let again = 3; again > 0 && !all(seen); again--) {
      seen = await ping(guest, there.address, `${few}${size}`)
    }
    if (!all(seen)) {
      throw new Failure(
        `Cannot inject a fault on ${fault.link} of \`${fault.host}\`: even without one, only ${seen.received} of ${seen.sent} packets come back`,
      )
    }
    if (fault.kind === 'dns' && !(await nameIsFound(guest))) {
      throw new Failure(
        `Cannot inject a dns fault into \`${fault.host}\`: names do not resolve even now`,
      )
    }
    return roundTrip(seen.times)
  })
}

/** Measures a fault on each of its VMs, and says in one line whether it does what was requested. */
export async function measure(faults: Fault[]): Promise<Proof> {
  const proofs = await Promise.all(
    faults.map((fault) =>
      withGuest(theVm(fault.host), (guest) => measurements(fault, guest, targetOf(fault))),
    ),
  )
  const name = (index: number): string => (faults.length > 1 ? `${faults[index]!.host}: ` : '')
  return {
    holds: proofs.every(({ holds }) => holds),
    text: proofs.map(({ text }, index) => name(index) + text).join('; '),
  }
}

function measurements(fault: Fault, guest: GuestAgent, there: Target): Promise<Proof> {
  switch (fault.kind) {
    case 'cut':
      return cutOff(fault, guest, there)
    case 'flap':
      return flapping(fault, guest)
    case 'one-way':
      return there.vm ? oneWayOnLan(fault, guest, there, there.vm) : oneWay(fault, guest, there)
    case 'partition':
      return parted(guest, there)
    case 'dns':
      return nameless(guest)
    default:
      return ping(guest, there.address, pingFlags(fault), { limit: 120 }).then((seen) =>
        judgePing(fault, seen, fault.before),
      )
  }
}

/**
 * Whether a link works as it did before its fault. Allows 20 s, because the guest may have to resolve
 * its neighbour's MAC address again.
 */
export async function unfaulted(vm: Vm, link: Link, fault?: Fault): Promise<Proof> {
  let text = ''
  const probe = async (guest: GuestAgent): Promise<boolean> => {
    const there = attempt(
      () => targetOf({ host: vm.host, link, peer: fault?.peer }),
      () => undefined,
    )
    if (!there) {
      text = 'it has its carrier and no rule; no other VM runs to measure it against'
      return true
    }
    const seen = await ping(guest, there.address, `${few} -W 1`)
    const slower = fault ? roundTrip(seen.times).median - fault.before.median : 0
    const names = fault?.kind !== 'dns' || (await nameIsFound(guest))
    text = `${came(seen)}${names ? '' : ', no name is found'}${slower > 25 ? `, ${slower.toFixed(0)} ms later than before` : ''}`
    return seen.sent > 0 && seen.received === seen.sent && slower <= 25 && names
  }
  return await withGuest(vm, (guest) =>
    waitFor(`${link} of \`${vm.host}\` to work again`, 20, () => probe(guest)).then(
      () => ({ holds: true, text }),
      onFailure(({ message }) => ({ holds: false, text: text || message })),
    ),
  )
}

async function cutOff(fault: Fault, guest: GuestAgent, there: Target): Promise<Proof> {
  const { without } = await watchCarrier(guest, fault.link, 1)
  const seen = await ping(guest, there.address, lost)
  const git = fault.link === 'uplink' && (await gitAnswers(guest))
  return {
    holds: without === 1 && seen.received === 0 && !git,
    text: [
      without === 1 ? 'no carrier' : 'there is a carrier',
      came(seen),
      fault.link === 'uplink' && `git ${git ? 'connects' : 'does not connect'}`,
    ]
      .filter(Boolean)
      .join(', '),
  }
}

async function flapping({ link, down = 0, up = 0 }: Fault, guest: GuestAgent): Promise<Proof> {
  const { without, changes } = await watchCarrier(guest, link, 2 * (down + up))
  const asked = down / (down + up)
  const percent = (share: number): string => `${(100 * share).toFixed(0)} %`
  return {
    holds: changes >= 3 && Math.abs(without - asked) <= 0.15,
    text: `no carrier for ${percent(asked)} of the time asked, ${percent(without)} measured (± 15, ${changes} changes in ${2 * (down + up)} s)`,
  }
}

/** On uplink only the guest starts a conversation, so the NIC's own counters tell the two directions apart. */
async function oneWay(fault: Fault, guest: GuestAgent, there: Target): Promise<Proof> {
  const { link, direction } = fault
  const first = await counters(guest, link)
  const seen = await ping(guest, there.address, lost, { neighbour: { link, mac: there.mac } })
  const last = await counters(guest, link)
  const [sent, received] = [last.sent - first.sent, last.received - first.received]
  const other = direction === 'out' ? sent === 0 : sent >= seen.sent && received >= seen.sent
  return {
    holds: seen.sent > 0 && seen.received === 0 && other,
    text: `${came(seen)}; ${sent} left the NIC, ${received} reached it`,
  }
}

/** On lan the ping comes from the side whose requests still arrive, so that the fault drops only the replies. */
async function oneWayOnLan(fault: Fault, guest: GuestAgent, there: Target, vm: Vm): Promise<Proof> {
  const { link, direction, host } = fault
  const mine = theVm(host)
  return await withGuest(vm, async (far) => {
    const [from, to] = direction === 'in' ? [guest, far] : [far, guest]
    const [address, mac] =
      direction === 'in' ? [there.address, there.mac] : [lanAddress(mine), macs(mine.slot).lan]
    const first = await counters(to, link)
    const seen = await ping(from, address, lost, { neighbour: { link, mac } })
    const asked = (await counters(to, link)).asked - first.asked
    return {
      holds: seen.sent > 0 && seen.received === 0 && asked >= seen.sent,
      text: `${came(seen)}, though ${asked} of ${seen.sent} arrived ${direction === 'in' ? 'there' : 'here'}`,
    }
  })
}

async function parted(guest: GuestAgent, there: Target): Promise<Proof> {
  const { without } = await watchCarrier(guest, 'lan', 0.3)
  const seen = await ping(guest, there.address, lost)
  return {
    holds: without === 0 && seen.sent > 0 && seen.received === 0,
    text: `${came(seen)} from ${there.vm?.host}${without === 0 ? '' : ', but it has no carrier'}`,
  }
}

async function nameless(guest: GuestAgent): Promise<Proof> {
  const [named, git] = [await nameIsFound(guest), await gitAnswers(guest)]
  return {
    holds: !named && git,
    text: `the name is ${named ? '' : 'not '}found, the address ${git ? 'answers' : 'does not answer'}`,
  }
}

function targetOf({ host, link, peer }: Place): Target {
  if (link === 'uplink') return { address: '10.0.3.2', mac: '52:55:0a:00:03:02' }
  const others = peer === undefined ? knownVms().map(theVm) : [theVm(peer)]
  const vm = others.find((other) => other.host !== host && qemuOf(other))
  if (!vm) {
    throw new Failure(`Cannot measure lan of \`${host}\`: no other VM runs`, {
      hint: 'just deploy-test-vm torment',
    })
  }
  return { address: lanAddress(vm), mac: macs(vm.slot).lan, vm }
}

const lanAddress = ({ slot }: Vm): string => `10.0.4.${slot}`

const came = ({ sent, received }: Pinged): string => `${received} of ${sent} packets came back`
