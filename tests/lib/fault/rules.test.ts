import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { agrees, healing, injection, looking, rules, seen } from '../../../lib/fault/rules.ts'
import { kinds, kindOf, links, type Fault, type Kind } from '../../../lib/fault/fault.ts'

const fault = (more: Partial<Fault> = {}): Fault => ({
  id: 'f1',
  kind: 'loss',
  link: 'uplink',
  host: "it's",
  direction: 'out',
  value: 20,
  since: 0,
  until: 1,
  state: 'wanted',
  qemu: { pid: 1, start: 1 },
  before: { least: 1, median: 1 },
  ...more,
})

test('no fault has a rule that touches mgmt, and only cable faults have no rules', () => {
  for (const kind of Object.keys(kinds) as Kind[]) {
    for (const link of links) {
      for (const direction of ['in', 'out', 'both'] as const) {
        const commands = rules({ kind, link, direction, value: 50 }, 2)
        expect(commands.join('\n')).not.toContain('mgmt')
        expect(commands.length === 0).toBe(kindOf(kind).cable === true)
      }
    }
  }
  expect(healing(links)).not.toContain('mgmt')
})

test('a fault’s rules apply to the direction that was requested', () => {
  expect(rules(fault())).toEqual(['tc qdisc add dev uplink root netem loss random 20% limit 10000'])
  expect(rules(fault({ direction: 'in' })).join('\n')).not.toContain('dev uplink root')
  expect(rules(fault({ direction: 'both' }))).toHaveLength(6)
  expect(rules(fault({ kind: 'one-way', direction: 'in' })).at(-1)).toMatch(/ ingress matchall /)
  expect(rules(fault({ kind: 'one-way', direction: 'out' })).at(-1)).toMatch(/ egress matchall /)
  expect(rules(fault({ kind: 'partition', link: 'lan' }), 2).at(-1)).toContain('52:54:00:03:00:02')
  expect(rules(fault({ kind: 'dns' })).at(-1)).toContain('dst_ip 10.0.3.53')
})

test.each([
  ['injection', injection(fault(), rules(fault({ direction: 'both' })), 60)],
  ['healing', healing(links)],
  ['looking', looking],
])('shellcheck accepts the program for %s', (_, program) => {
  const options = ['--shell=sh', '--exclude=SC2012', '-']
  expect(execFileSync('shellcheck', options, { input: program, encoding: 'utf8' })).toBe('')
})

test('the lease is set up before the first rule, and stopped if a rule fails', () => {
  const program = injection(fault(), rules(fault()), 60)
  expect(program.indexOf('systemd-run')).toBeLessThan(program.indexOf('netem'))
  expect(program).toContain('sleep 60')
  expect(program.indexOf('systemctl stop lab-fault-uplink')).toBeLessThan(program.indexOf('netem'))
})

const qdisc = (dev: string, kind: string): object => ({ kind, handle: '0:', dev, root: true })
const answer = (units: string, ...qdiscs: object[]): string =>
  `carrier uplink 1\ncarrier lan 0\n${units}\n${JSON.stringify([qdisc('mgmt', 'fq_codel'), ...qdiscs])}\n`
const unit = (link: string, state: string, description: string): string =>
  `Id=lab-fault-${link}.service\nDescription=${description}\nActiveState=${state}\n`

test('the state of a guest is read from its units, rules and carriers', () => {
  const none = `${unit('uplink', 'inactive', 'lab-fault-uplink.service')}\n${unit('lan', 'inactive', 'lab-fault-lan.service')}`
  expect(seen(answer(none, qdisc('uplink', 'fq_codel')))).toEqual({
    uplink: { carrier: true, ruled: false },
    lan: { carrier: false, ruled: false },
  })
  const held = `${unit('uplink', 'active', JSON.stringify(fault()))}\n${unit('lan', 'inactive', 'x')}`
  const { uplink, lan } = seen(answer(held, qdisc('uplink', 'netem')))
  expect(uplink).toMatchObject({ ruled: true, lease: { id: 'f1', host: "it's" } })
  expect(lan).toMatchObject({ ruled: false })
  expect(agrees(fault(), uplink)).toBe(true)
})

test('a record disagrees with a guest that lacks its rules or its lease, or has another fault’s lease', () => {
  const there = { carrier: true, ruled: true, lease: fault() }
  expect(agrees(fault(), { ...there, ruled: false })).toBe(false)
  expect(agrees(fault(), { ...there, lease: undefined })).toBe(false)
  expect(agrees(fault({ id: 'f2' }), there)).toBe(false)
  expect(agrees(fault({ kind: 'cut' }), { carrier: true, ruled: false })).toBe(false)
  expect(agrees(fault({ kind: 'cut' }), { carrier: false, ruled: false })).toBe(true)
})

test('rules without a lease are detected, also those on the device for incoming traffic', () => {
  for (const left of [qdisc('fault-lan', 'netem'), qdisc('lan', 'clsact'), qdisc('lan', 'netem')]) {
    expect(seen(answer('', left)).lan.ruled).toBe(true)
    expect(seen(answer('', left)).uplink.ruled).toBe(false)
  }
})
