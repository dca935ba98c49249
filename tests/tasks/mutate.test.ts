import { rmSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Mutant } from '../../lib/mutation/mutant.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
// an unusable cache, so that nothing can be traced and each run ends before its first verdict
beforeEach(() => (lab = makeLab({ LAB_CACHE: '/dev/null/cache' })))
afterEach(() => rmSync(lab.dir, { recursive: true }))

const resumed = async (): Promise<Mutant[]> =>
  JSON.parse((await lab.task('mutate', '--resume', '--list', '--json')).stdout) as Mutant[]

test('a run interrupted before its first verdict can be resumed', async () => {
  expect(await lab.task('mutate', 'show-golden', '--sample', '2')).toMatchObject({ code: 3 })
  const chosen = await resumed()
  expect(chosen.map(({ agent }) => agent)).toEqual(['show-golden', 'show-golden'])
  // a refused run has not begun
  expect(await lab.task('mutate', 'show-golden', '--tests', 'none.ts')).toMatchObject({ code: 2 })
  expect(await resumed()).toEqual(chosen)
  const [{ id }] = chosen as [Mutant, Mutant]
  expect(await lab.task('mutate', '--mutant', id)).toMatchObject({ code: 3 })
  expect((await resumed()).map((one) => one.id)).toEqual([id])
})
