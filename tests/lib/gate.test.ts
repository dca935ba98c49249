import { expect, test } from 'vitest'
import { gate } from '../../lib/gate.ts'

/** Lets waiting code run as far as it can. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('a gate admits at most as many as it has places, in the order of arrival', async () => {
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

test('a waiter that gives up does not use up a place', async () => {
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
