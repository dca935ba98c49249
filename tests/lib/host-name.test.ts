import { expect, test } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { hostName } from '../../lib/host-name.ts'

test.each(['a', 'sorrow', 'web-1', 'a--b', 'x'.repeat(63)])(
  '%s is accepted as a host name',
  (name) => {
    expect(hostName(name)).toBe(name)
  },
)

test.each([
  ['', ''],
  ['1a', '1a'],
  ['-a', '-a'],
  ['a-', 'a-'],
  ['Sorrow', 'Sorrow'],
  ['a.b', 'a.b'],
  ['a_b', 'a_b'],
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
