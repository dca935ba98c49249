import { expect, test } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { Lost, share } from '../../lib/share.ts'

interface Thing {
  name: string
  vms: number
  seconds: number
}
const thing = (name: string, seconds: number, vms = 1): Thing => ({ name, vms, seconds })

/** Works in labs with simulated time: a second is a turn of the event loop. */
async function worked(
  things: Thing[],
  count: number,
  {
    vms = 2,
    breaks = (_one: Thing, _lab: number): boolean => false,
    labs = [] as Promise<number>[],
  } = {},
) {
  const log: { name: string; lab: number; vms: number[]; from: number; to: number }[] = []
  const lost: [number, string][] = []
  const began: string[] = []
  let now = 0
  const sleep = async (turns: number): Promise<void> => {
    for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate)
  }
  const tick = (): void => {
    now += 1
    clock = setImmediate(tick)
  }
  let clock = setImmediate(tick)
  const all = labs.length > 0 ? labs : Array.from({ length: count }, (_, lab) => lab)
  const left = await share(things, all, {
    vms,
    needs: (one) => one.vms,
    seconds: (one) => one.seconds,
    run: async (one, lab, own) => {
      const from = now
      began.push(one.name)
      if (breaks(one, lab)) throw new Lost(`lab ${lab} broke`)
      await sleep(one.seconds)
      log.push({ name: one.name, lab, vms: own, from, to: now })
    },
    lost: (index, why) => void lost.push([index, why.message]),
  })
  clearImmediate(clock)
  return { log, began, lost, left: left.map(({ name }) => name) }
}

const some = [
  ...Array.from({ length: 12 }, (_, n) => thing(`single-${n}`, 5 + ((n * 7) % 30))),
  ...Array.from({ length: 3 }, (_, n) => thing(`double-${n}`, 10 + 5 * n, 2)),
]

test.each([1, 2, 3, 4, 20])(
  'with %i labs everything is done once, and each VM does one thing at a time',
  async (count) => {
    const { log, left, lost } = await worked(some, count)
    expect(log.map(({ name }) => name).toSorted()).toEqual(some.map(({ name }) => name).toSorted())
    expect([left, lost]).toEqual([[], []])
    for (const a of log) {
      expect(a.vms).toHaveLength(some.find(({ name }) => name === a.name)!.vms)
      const beside = log.filter(
        (b) => b !== a && b.lab === a.lab && b.vms.some((vm) => a.vms.includes(vm)),
      )
      for (const b of beside)
        expect(b.to <= a.from || a.to <= b.from, `${a.name} and ${b.name}`).toBe(true)
    }
  },
)

test('the longest begin first, and those that need a whole lab before all others', async () => {
  const { began } = await worked(some, 1)
  const secondsOf = (name: string): number => some.find((one) => one.name === name)!.seconds
  expect(began.slice(0, 3)).toEqual(['double-2', 'double-1', 'double-0'])
  const singles = began.slice(3).map(secondsOf)
  expect(singles).toEqual(singles.toSorted((a, b) => b - a))
  expect(singles).toHaveLength(12)
})

test('no VM is idle while there is work that it could do', async () => {
  const singles = some.filter(({ vms }) => vms === 1)
  const { log } = await worked(singles, 2)
  const lastBegin = Math.max(...log.map(({ from }) => from))
  for (const lab of [0, 1]) {
    for (const vm of [0, 1]) {
      const own = log.filter((one) => one.lab === lab && one.vms[0] === vm)
      const end = Math.max(...own.map(({ to }) => to))
      expect(end).toBeGreaterThanOrEqual(lastBegin)
    }
  }
})

test('work that a lab fails at is done by another, and that lab gets no more', async () => {
  const { log, lost, left } = await worked(some, 2, { breaks: (_, lab) => lab === 1 })
  expect(log.map(({ name }) => name).toSorted()).toEqual(some.map(({ name }) => name).toSorted())
  expect(log.every(({ lab }) => lab === 0)).toBe(true)
  expect(lost).toEqual([[1, 'lab 1 broke']])
  expect(left).toEqual([])
})

test('if a lab is lost with the last item, one that was idle does it', async () => {
  const last = thing('last', 5)
  const { log, lost } = await worked([last, thing('short', 1), thing('other', 1)], 2, {
    vms: 1,
    breaks: (one, lab) => one === last && lab === 0,
  })
  expect(log.find(({ name }) => name === 'last')?.lab).toBe(1)
  expect(lost).toEqual([[0, 'lab 0 broke']])
})

test('if all labs are lost, the unfinished work is returned', async () => {
  const { lost, left, log } = await worked(some, 2, { breaks: () => true })
  expect(lost.map(([lab]) => lab).toSorted((a, b) => a - b)).toEqual([0, 1])
  expect(log).toEqual([])
  expect(left.toSorted()).toEqual(some.map(({ name }) => name).toSorted())
})

test('a lab that fails to start is lost, and one that starts late takes its share', async () => {
  const later = new Promise<number>((resolve) => setTimeout(() => resolve(1), 5))
  const labs = [Promise.resolve(0), later, Promise.reject(new Failure('no room'))]
  const many = Array.from({ length: 60 }, (_, n) => thing(`n${n}`, 200))
  const { log, lost, left } = await worked(many, 3, { labs, vms: 1 })
  expect(lost).toEqual([[2, 'no room']])
  expect(left).toEqual([])
  expect(new Set(log.map(({ lab }) => lab))).toEqual(new Set([0, 1]))
})

test('a bug is thrown, once running work has ended', async () => {
  const done: string[] = []
  const sharing = share([thing('bug', 9), thing('good', 8), thing('later', 1)], [0, 1], {
    vms: 1,
    needs: () => 1,
    seconds: (one) => one.seconds,
    run: async ({ name }) => {
      if (name === 'bug') throw new TypeError('a bug')
      await new Promise((resolve) => setTimeout(resolve, 10))
      done.push(name)
    },
    lost: () => {},
  })
  await expect(sharing).rejects.toThrow('a bug')
  expect(done).toEqual(['good'])
})
