import { expect, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import {
  cableIn,
  faultName,
  holds,
  kinds,
  secondsLeft,
  type Fault,
} from '../../../lib/fault/fault.ts'
import { readRequest, seconds } from '../../../lib/fault/request.ts'

const qemu = { pid: 7, start: 70 }
const fault = (more: Partial<Fault> = {}): Fault => ({
  id: 'f1',
  kind: 'loss',
  link: 'uplink',
  host: 'sorrow',
  direction: 'out',
  value: 20,
  since: 1000,
  until: 61_000,
  state: 'active',
  qemu,
  before: { least: 0.1, median: 0.3 },
  ...more,
})

test('a request is read with defaults for what it leaves out', () => {
  expect(readRequest('delay', { link: 'uplink', host: ['sorrow'], ms: 100, for: '2m' })).toEqual({
    kind: 'delay',
    link: 'uplink',
    hosts: ['sorrow'],
    direction: 'out',
    value: 100,
    lease: 120,
  })
  expect(readRequest('partition', { host: ['sorrow', 'torment'] })).toMatchObject({
    link: 'lan',
    hosts: ['sorrow', 'torment'],
    lease: 60,
  })
  expect(readRequest('dns', { host: ['sorrow'] })).toMatchObject({ link: 'uplink' })
  expect(readRequest('flap', { link: 'lan', host: ['sorrow'] })).toMatchObject({ down: 2, up: 3 })
})

test.each([
  [
    'loss',
    { link: 'mgmt', host: ['sorrow'], percent: 20 },
    /mgmt: the lab commands its VMs over it/,
  ],
  ['loss', { link: 'wan', host: ['sorrow'], percent: 20 }, /no such link/],
  ['loss', { host: ['sorrow'], percent: 20 }, /without --link/],
  ['loss', { link: 'uplink', percent: 20 }, /on uplink of 0 VMs/],
  ['loss', { link: 'lan', host: ['sorrow', 'torment'], percent: 20 }, /on lan of 2 VMs/],
  ['loss', { link: 'uplink', host: ['sorrow'] }, /without --percent/],
  ['loss', { link: 'uplink', host: ['sorrow'], percent: 0.5 }, /with --percent 0.5/],
  ['loss', { link: 'uplink', host: ['sorrow'], percent: 100 }, /with --percent 100/],
  ['loss', { link: 'uplink', host: ['sorrow'], percent: Number.NaN }, /with --percent NaN/],
  ['loss', { link: 'uplink', host: ['sorrow'], percent: 20, ms: 3 }, /it has no such number/],
  ['loss', { link: 'uplink', host: ['sorrow'], percent: 20, direction: 'up' }, /direction `up`/],
  ['one-way', { link: 'uplink', host: ['sorrow'], direction: 'both' }, /direction `both`/],
  ['cut', { link: 'uplink', host: ['sorrow'], direction: 'in' }, /direction `in`/],
  ['partition', { host: ['sorrow'] }, /on lan of 1 VMs/],
  ['partition', { link: 'uplink', host: ['sorrow', 'torment'] }, /it is a fault of lan/],
  ['dns', { link: 'lan', host: ['sorrow'] }, /it is a fault of uplink/],
  ['loss', { link: 'uplink', host: ['sorrow'], percent: 20, for: '1s' }, /`1s` as a lease/],
  ['loss', { link: 'uplink', host: ['../x'], percent: 20 }, /x/],
  ['toString', { link: 'uplink', host: ['sorrow'] }, /there is no such fault/],
] as const)('%s with %o is refused as a wrong argument', (kind, words, message) => {
  const read = (): unknown =>
    readRequest(kind, { ...words, host: 'host' in words ? [...words.host] : [] })
  expect(read).toThrow(message)
  try {
    read()
  } catch (thrown) {
    expect((thrown as Failure).exit).toBe(2)
  }
})

test.each([
  ['5s', 5],
  ['90', 90],
  ['1.5m', 90],
  ['6h', 21_600],
])('a lease of %s is %d seconds', (text, value) => expect(seconds(text)).toBe(value))

test.each(['', '4s', '7h', '1d', '-5s', '1e3', '10 minutes'])(
  '`%s` is refused as a lease',
  (text) => expect(() => seconds(text)).toThrow(/as a lease/),
)

test('a fault holds only until its lease ends, and only in the QEMU it was injected into', () => {
  expect(holds(fault(), qemu, 60_999)).toBe(true)
  expect(holds(fault(), qemu, 61_000)).toBe(false)
  expect(holds(fault({ state: 'wanted' }), qemu, 2000)).toBe(false)
  // after a reboot of the guest there is another QEMU, maybe with the same pid
  expect(holds(fault(), { pid: 8, start: 70 }, 2000)).toBe(false)
  expect(holds(fault(), { pid: 7, start: 71 }, 2000)).toBe(false)
  expect(holds(fault(), undefined, 2000)).toBe(false)
})

test('a pulled cable is still out after QEMU has been restarted', () => {
  expect(holds(fault({ kind: 'cut' }), { pid: 8, start: 80 }, 2000)).toBe(true)
  expect(holds(fault({ kind: 'cut' }), undefined, 2000)).toBe(false)
})

test('a cut pulls the cable for the whole lease, and only on its link', () => {
  const cut = [fault({ kind: 'cut' })]
  expect(cableIn(cut, 'uplink', 999)).toBe(true)
  expect(cableIn(cut, 'uplink', 1000)).toBe(false)
  expect(cableIn(cut, 'uplink', 60_999)).toBe(false)
  expect(cableIn(cut, 'uplink', 61_000)).toBe(true)
  expect(cableIn(cut, 'lan', 2000)).toBe(true)
  expect(cableIn([fault()], 'uplink', 2000)).toBe(true)
})

test('a flapping cable alternates between out and in, and ends in', () => {
  const flap = [fault({ kind: 'flap', down: 2, up: 3 })]
  const states = [0, 1.9, 2, 4.9, 5, 6.9, 7, 59.9, 60].map((after) =>
    cableIn(flap, 'uplink', 1000 + after * 1000),
  )
  expect(states).toEqual([false, false, true, true, false, false, true, true, true])
})

test('the time left of a lease is never negative', () => {
  expect(secondsLeft(fault(), 60_100)).toBe(1)
  expect(secondsLeft(fault(), 70_000)).toBe(0)
})

test('the name of a fault states its kind, values, link and VM', () => {
  expect(faultName(fault())).toBe('loss 20 % out on uplink of sorrow')
  expect(faultName(fault({ kind: 'partition', link: 'lan', peer: 'torment' }))).toBe(
    'partition on lan of sorrow from torment',
  )
  expect(faultName(fault({ kind: 'flap', down: 2, up: 3 }))).toBe(
    'flap 2 s out, 3 s in, on uplink of sorrow',
  )
})

test('every kind has a one-line description', () => {
  for (const { describe } of Object.values(kinds)) expect(describe).toMatch(/^\S.{10,}[^.]$/)
})
