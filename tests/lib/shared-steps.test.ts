import { afterEach, expect, test, vi } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { Lost } from '../../lib/share.ts'
import { runShared, type SharedStep } from '../../lib/shared-steps.ts'

afterEach(() => void vi.restoreAllMocks())

/** The lines that are printed without a terminal. */
function printed(): string[] {
  const lines: string[] = []
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    lines.push(...String(text).split('\n').filter(Boolean))
    return true
  })
  return lines
}

const step = (title: string, seconds: number, run: SharedStep<string>['run']) => ({
  ...{ title, seconds, run },
  vms: 1,
})
const labs = [
  { titles: ['sorrow'], ready: 'own' },
  { titles: ['sorrow (copy 1)'], ready: 'copy' },
]

test('each case is printed with its VM, and a failed case throws nothing', async () => {
  const lines = printed()
  const lost = vi.fn()
  const steps = [
    step('passes', 3, async () => {}),
    step('fails', 2, async () => {
      throw new Failure('fails: found b')
    }),
    step('skipped', 1, async () => ({ skipped: 'not promised' })),
  ]
  expect(await runShared(steps, labs.slice(0, 1), lost)).toEqual([])
  const words = lines.map((line) =>
    line.replace(/^[^\w[]+ /, '').replace(/\(\d+\.\d s\)/, '(0.0 s)'),
  )
  expect(words).toEqual([
    'sorrow: passes',
    '[1/3] sorrow: passes (0.0 s)',
    'sorrow: fails',
    '[2/3] sorrow: fails (0.0 s): fails: found b',
    'sorrow: skipped',
    '[3/3] sorrow: skipped (0.0 s): not promised',
  ])
  expect(lost).not.toHaveBeenCalled()
})

test('a case of a lost lab is run in another, and counted once', async () => {
  const lines = printed()
  const lost = vi.fn()
  const ran: string[] = []
  const steps = ['a', 'b', 'c'].map((title) =>
    step(title, 1, async (lab) => {
      if (lab === 'copy') throw new Lost('Cannot put `sorrow` back')
      await new Promise((resolve) => setTimeout(resolve, 5))
      ran.push(`${lab} ${title}`)
    }),
  )
  expect(await runShared(steps, labs, lost)).toEqual([])
  expect(ran.toSorted()).toEqual(['own a', 'own b', 'own c'])
  expect(lost).toHaveBeenCalledExactlyOnceWith(1, expect.any(Lost))
  expect(lines.filter((line) => /\[\d\/3\]/.test(line))).toHaveLength(3)
  expect(lines.filter((line) => line.includes('copy 1')).at(-1)).toContain(
    'sorrow (copy 1): Cannot put `sorrow` back',
  )
})

test('if all labs are lost, the remaining cases are returned', async () => {
  const steps = ['a', 'b', 'c'].map((title) =>
    step(title, 1, async () => {
      throw new Lost('gone')
    }),
  )
  const left = await runShared(steps, labs, () => {}, { quiet: true })
  expect(left.map(({ title }) => title).toSorted()).toEqual(['a', 'b', 'c'])
})
