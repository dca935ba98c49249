import { execFileSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { progress } from '../../../lib/nix/progress.ts'
import { realise } from '../../../lib/nix/nix.ts'
import { store } from '../../nix/evaluate.ts'

/** Options for builds that need only a shell in the sandbox. */
const buildable = (): string[] => [
  ...store(),
  ...['--option', 'build-users-group', '', '--option', 'substituters', ''],
  ...['--option', 'sandbox', 'true', '--option', 'sandbox-paths', '/bin/sh=/bin/busybox'],
]

const instantiate = (options: string[], name: string, script: string): string =>
  execFileSync('nix-instantiate', [
    ...options,
    '--expr',
    `derivation { name = "${name}"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" ''${script}'' ]; }`,
  ])
    .toString()
    .trim()

describe('The progress of a Nix build', () => {
  test('has counts and the names of what is being built', async () => {
    const options = buildable()
    const said: string[] = []
    const derivations = ['one', 'two'].map((name) =>
      instantiate(options, name, `echo working; echo > $out`),
    )
    const paths = await realise(derivations, options, { say: (line) => said.push(line) })
    expect(paths.map((path) => path.slice(44))).toEqual(['one', 'two'])
    expect(said).toContainEqual(expect.stringMatching(/^[01]\/2 built, building (one|two)/))
    expect(said.findLast((line) => line)).toBe('2/2 built')
  })

  test('ends with the last lines of a failed builder, without raw JSON', async () => {
    const options = buildable()
    const bad = instantiate(options, 'bad', 'echo no such compiler; exit 3')
    const failed = await realise([bad], options).catch((error: unknown) => error)
    expect(failed).toBeInstanceOf(Failure)
    const { evidence } = (failed as Failure).detail
    expect(evidence).toMatch(
      /^no such compiler\nerror: builder for .*bad\.drv' failed with exit code 3/,
    )
    expect(evidence).not.toContain('@nix')
    expect(evidence).not.toContain('\u001b')
  })
})

test('A line that is not from nix is passed on, and a truncated one is ignored', () => {
  const seen = progress()
  expect(seen.take('warning: something')).toBe(false)
  expect(seen.take('@nix {"action":"start","id":1,"ty')).toBe(true)
  expect(seen.line()).toBe('')
})

test('Fetched paths are counted separately from built ones', () => {
  const seen = progress()
  for (const event of [
    { action: 'start', id: 1, type: 103 },
    { action: 'start', id: 2, type: 104 },
    { action: 'result', id: 1, type: 105, fields: [3, 40, 2, 0] },
    { action: 'result', id: 2, type: 105, fields: [1, 7, 1, 2] },
  ]) {
    seen.take(`@nix ${JSON.stringify(event)}`)
  }
  expect(seen.line()).toBe('1/7 built, 3/40 fetched, 2 failed')
})
