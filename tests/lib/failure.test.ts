import { expect, test } from 'vitest'
import { Failure, Unwritable, explain, orUnwritable, usage } from '../../lib/failure.ts'

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

test('control characters in what a user typed are escaped', () => {
  const text = explain('x', usage('Cannot use `a\nb\u001b[2J` as a host name'))
  expect(text).toBe('x: Cannot use `a\\nb\\u001b[2J` as a host name')
})

test('invisible characters in what a user pasted are escaped', () => {
  const text = explain('x', usage('Cannot find `so\u200brrow\u00a0\u202e` or “grün”'))
  expect(text).toBe('x: Cannot find `so\\u200brrow\\u00a0\\u202e` or “grün”')
})

test('a bug keeps its stack', () => {
  expect(explain('x', new TypeError('boom'))).toMatch(/This is a bug[^]*TypeError: boom\n\s+at /)
})

test('a failure exits with 3, and a usage failure with 2', () => {
  expect(new Failure('Cannot').exit).toBe(3)
  expect(usage('Cannot').exit).toBe(2)
})

test.each([
  ['ENOSPC', 'Cannot write `/x/y`: the disk is full'],
  ['EROFS', 'Cannot write `/x/y`: the file system is read-only'],
])('a disk that cannot be written to (%s) is not reported as a bug of the lab', (code, message) => {
  const thrown = orUnwritable(Object.assign(new Error('x'), { code, path: '/x/y' }))
  expect(thrown).toBeInstanceOf(Unwritable)
  expect(explain('status', thrown)).toMatch(`status: ${message}\n  hint: just status`)
})

test('a path through a file is not reported as a bug, nor as a full disk', () => {
  const thrown = orUnwritable(Object.assign(new Error('x'), { code: 'ENOTDIR', path: '/x/y' }))
  expect(thrown).not.toBeInstanceOf(Unwritable)
  expect(explain('status', thrown)).toBe('status: Cannot use `/x/y`: a directory in it is a file')
})

test('a package that is not installed is not reported as a bug of the lab', () => {
  const error = new Error("Cannot find module 'yargs'\nRequire stack:\n- /x/task.ts")
  const thrown = orUnwritable(Object.assign(error, { code: 'MODULE_NOT_FOUND' }))
  expect(explain('status', thrown)).toBe('status: Cannot find the package `yargs`\n  hint: npm ci')
})

test('orUnwritable passes any other error on unchanged', () => {
  for (const one of [new Failure('x'), new Error('y'), undefined, 'z']) {
    expect(orUnwritable(one)).toBe(one)
  }
})
