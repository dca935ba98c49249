import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { durations, remember } from '../../../lib/scenario/durations.ts'
import { families } from '../../../tasks/pipelines/families.ts'

let home: string
const before = process.env['LAB_HOME']
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'durations-'))
  process.env['LAB_HOME'] = home
})
afterEach(() => {
  if (before === undefined) delete process.env['LAB_HOME']
  else process.env['LAB_HOME'] = before
  rmSync(home, { recursive: true })
})

const file = () => join(home, 'durations.json')

test('the built-in durations name only existing cases, and most of them', async () => {
  const there = (await families()).flatMap(({ name, cases }) =>
    cases.map((one) => `${name}/${one.name}`),
  )
  const guessed = Object.keys(durations())
  expect(guessed.filter((name) => !there.includes(name))).toEqual([])
  expect(guessed.length).toBeGreaterThan(there.length / 2)
})

test('the duration of a case is stored for the next run', () => {
  const guess = durations()
  remember('break-boot/panic', 12.34)
  expect(durations()).toEqual({ ...guess, 'break-boot/panic': 12.3 })
  // only durations measured here are stored, so that better guesses of the next version count
  expect(JSON.parse(readFileSync(file(), 'utf8'))).toEqual({ 'break-boot/panic': 12.3 })
  expect(readdirSync(home)).toEqual(['durations.json'])
})

test.each(['', '{', '{"break-boot/panic": "long"}', '{"break-boot/panic": -1}', 'null'])(
  'a file of durations that holds %j is ignored without a failure',
  (text) => {
    const guess = durations()
    writeFileSync(file(), text)
    expect(durations()).toEqual(guess)
    remember('break-boot/hang', 9)
    expect(durations()).toEqual({ ...guess, 'break-boot/hang': 9 })
  },
)

test('durations that cannot be stored do not fail the run', () => {
  process.env['LAB_HOME'] = '/proc/nowhere'
  expect(() => remember('break-boot/panic', 1)).not.toThrow()
})
