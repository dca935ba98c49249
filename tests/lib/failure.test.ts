import { expect, test } from 'vitest'
import { Failure, explain, usage } from '../../lib/failure.ts'

test('an expected failure is one line, a hint, the evidence and the replay', () => {
  const failure = new Failure('Cannot start `sorrow`', {
    hint: 'just doctor',
    evidence: 'serial.log',
    replay: 'just lab',
  })
  expect(explain('deploy-vm', failure)).toBe(
    'deploy-vm: Cannot start `sorrow`\n  hint: just doctor\n  evidence: serial.log\n  replay: just lab',
  )
})

test('what a user typed cannot add lines or move the cursor', () => {
  const text = explain('x', usage('Cannot use `a\nb\u001b[2J` as a host name'))
  expect(text).toBe('x: Cannot use `a\\nb\\u001b[2J` as a host name')
})

test('a bug keeps its stack', () => {
  expect(explain('x', new TypeError('boom'))).toMatch(/This is a bug[^]*TypeError: boom\n\s+at /)
})

test('the lab itself could not run, unless said otherwise', () => {
  expect(new Failure('Cannot').exit).toBe(3)
  expect(usage('Cannot').exit).toBe(2)
})
