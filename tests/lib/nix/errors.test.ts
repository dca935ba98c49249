import { expect, test } from 'vitest'
import { causeIn, firstError } from '../../../lib/nix/nix.ts'

const store = '/nix/store/p45blj38pqhxhpczp9aqrp9hwfi46gnw'

test('The first failure is reported, not those of what depends on it', () => {
  // the output of nix 2.34 for a cache whose path had other contents
  const said = `copying path '${store}-initrd-usr-lib' from 'http://10.0.3.100'...
error: hash mismatch importing path '${store}-initrd-usr-lib';
         specified: sha256:1na05i2gfq9vkwm3mjhjz679cqq41j65x93yi8d6p935xikwv283
         got:       sha256:03q8223m5vwljr9y8drzdh1l14hh0jpdnjl6il14rlq7gv34yii4
error: path '${store}-initrd-usr-lib' is required, but there is no substituter that can build it
building '/nix/store/aar6gwk9fgag7nlvlpbi56jyqh7qxfcf-etc-lab-small.drv'...
error: Cannot build '/nix/store/n1f3r8j05gk92nxvwc8q751zc8c8lm5n-initrd-linux-7.2.13.drv'.
       Reason: 1 dependency failed.
       Output paths:
         /nix/store/l6ksgbv849iyxr671xlm983sgcz3f7ln-initrd-linux-7.2.13
`
  const first = firstError(said)
  expect(first.split('\n').length).toBe(3)
  expect(first).toContain('got:       sha256:03q8')
  expect(causeIn(first)).toBe(`hash mismatch importing path '${store}-initrd-usr-lib';`)
})

test.each([
  [
    '2.8',
    `error: builder for '${store}-a.drv' failed with exit code 1;
       last 2 log lines:
       > one
       > two
       For full logs, run 'nix log ${store}-a.drv'.
error: 1 dependencies of derivation '${store}-system.drv' failed to build
`,
    `builder for '${store}-a.drv' failed with exit code 1;`,
  ],
  [
    '2.34',
    `error: Cannot build '${store}-a.drv'.
       Reason: builder failed with exit code 1.
       Output paths:
         ${store}-a
       Last 20 log lines:
${'       > one\n'.repeat(19)}       > two
       For full logs, run:
         nix log ${store}-a.drv
error: Cannot build '${store}-system.drv'.
       Reason: 1 dependency failed.
       Output paths:
         ${store}-system
`,
    `Cannot build '${store}-a.drv'.`,
  ],
])('nix %s: a failed builder is reported with the end of its log', (_, said, cause) => {
  const first = firstError(said)
  expect(causeIn(first)).toBe(cause)
  expect(first).toContain('> two\n')
  expect(first).not.toContain('system.drv')
  expect(first.split('\n').length).toBeLessThanOrEqual(12)
})

test('The cause of a trace is its innermost error, however long the trace', () => {
  const way = Array.from({ length: 20 }, (_, at) => `       … while evaluating ${at}\n`).join('\n')
  const first = firstError(
    `error:\n${way}\n       error: attribute 'x' missing\n       at /a.nix:1:2:\n`,
  )
  expect(causeIn(first)).toBe("attribute 'x' missing")
})

test('If nix was killed without an error, its last lines are reported', () => {
  const first = firstError('building...\nKilled\n')
  expect(first).toBe('building...\nKilled')
  expect(causeIn(first)).toBeUndefined()
})
