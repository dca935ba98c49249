import { expect, test } from 'vitest'
import { gate } from '../../lib/gate.ts'

/** Lets waiting code run as far as it can. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('no more are let in than there are places, in the order in which they came', async () => {
  const { enter, leave } = gate(2)
  const inside: number[] = []
  for (const each of [1, 2, 3, 4]) void enter().then(() => inside.push(each))
  await turn()
  expect(inside).toEqual([1, 2])
  leave()
  await turn()
  expect(inside).toEqual([1, 2, 3])
  leave()
  leave()
  await turn()
  expect(inside).toEqual([1, 2, 3, 4])
})

test('who gives up while waiting takes the place of nobody', async () => {
  const { enter, leave } = gate(1)
  await enter()
  const givenUp = enter(Promise.reject(new Error('too late')))
  await expect(givenUp).rejects.toThrow('too late')
  let inside = false
  void enter().then(() => (inside = true))
  await turn()
  expect(inside).toBe(false)
  leave()
  await turn()
  expect(inside).toBe(true)
})
