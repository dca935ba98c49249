import { expect, test } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { hostName, newHostName } from '../../lib/host-name.ts'

const portable = ['a', 'sorrow', 'web-1', 'a--b', 'x'.repeat(63)]
const others = ['1a', '3', 'T480', 'NixOS', 'a_b', 'Fw_13-7040']

test.each([...portable, ...others])('a host of a flake may be named %s', (name) => {
  expect(hostName(name)).toBe(name)
})

test.each(portable)('a new host may be named %s', (name) => {
  expect(newHostName(name)).toBe(name)
})

test.each(others)('a new host may not be named %s, which is not valid everywhere', (name) => {
  expect(() => newHostName(name)).toThrow(`Cannot use \`${name}\` as a host name`)
})

test.each([
  ['', ''],
  ['-a', '-a'],
  ['a-', 'a-'],
  ['_a', '_a'],
  ['a_', 'a_'],
  ['a.b', 'a.b'],
  ['a b', 'a b'],
  ['ä', 'ä'],
  ['soｒrow', 'soｒrow'],
  ['../sorrow', '../sorrow'],
  ['/etc', '/etc'],
  ['${x}', '${x}'],
  ['$(id)', '$(id)'],
  ['"; }', '"; }'],
  ["a'b", "a'b"],
  ['a\n', 'a\\n'],
  ['a\nb', 'a\\nb'],
  ['a\u001b[31m', 'a\\u001b[31m'],
  ['a\0', 'a\\u0000'],
  ['x'.repeat(64), 'x'.repeat(64)],
  ['x'.repeat(5000), `${'x'.repeat(80)}…`],
])('%j is refused on one line', (name, shown) => {
  let thrown: unknown
  try {
    hostName(name)
  } catch (error) {
    thrown = error
  }
  expect(thrown).toBeInstanceOf(Failure)
  const { message, exit, detail } = thrown as Failure
  expect(message).toBe(`Cannot use \`${shown}\` as a host name`)
  expect(exit).toBe(2)
  expect(detail.hint).toMatch(/^Write 1 to 63 of a-z/)
})
