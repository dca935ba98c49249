import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, onTestFinished, test, vi } from 'vitest'
import { choose, runFamilies, spread } from '../../../lib/scenario/run.ts'
import type { Case, Family } from '../../../lib/scenario/family.ts'

const make = (name: string, limit?: number): Case => ({
  ...{ name, title: name, limit, promise: 'deploy' as const },
  run: async () => {},
})
const family: Family = {
  name: 'f',
  describe: 'Family',
  cases: [make('a', 400), make('b'), make('c', 400), make('d'), make('e')],
}

afterEach(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})

test('for a flake without the agents every case is skipped with that reason, and the run exits with 3', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'scenario-run-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  writeFileSync(
    join(dir, 'flake.nix'),
    '{ outputs = _: { nixosConfigurations.web = { options = { }; config = { }; }; }; }',
  )
  vi.stubEnv('LAB_FLAKE', dir)
  vi.stubEnv('LAB_HOME', join(dir, 'home'))
  vi.stubEnv('LAB_GUEST', 'auto')
  const said = vi.spyOn(console, 'log').mockImplementation(() => {})
  expect(await runFamilies([family], { name: 'f', json: true })).toBe(3)
  const { state, results } = JSON.parse(String(said.mock.calls[0]![0]))
  expect(state).toBe('skipped')
  expect(results).toHaveLength(5)
  expect(results[0]).toMatchObject({
    case: 'a',
    state: 'skipped',
    reason: expect.stringMatching(
      /^n\/a on the `nixos` guest, .*no labConfigurations: no host .* agents; import/,
    ),
  })
  const runs = join(dir, 'home/runs')
  const junit = readFileSync(join(runs, readdirSync(runs)[0]!, 'junit.xml'), 'utf8')
  expect(junit.match(/<skipped /g)).toHaveLength(5)
})

test('cases are chosen by name, or by family and name', () => {
  const names = (...wanted: string[]) => choose([family], wanted).map(({ one }) => one.name)
  expect(names()).toEqual(['a', 'b', 'c', 'd', 'e'])
  expect(names('c', 'f/a')).toEqual(['a', 'c'])
  expect(() => names('x')).toThrow('Cannot find a case `x`')
})

test('cases are spread evenly over the hosts, each once and in the order of the table', () => {
  const lanes = spread(choose([family], undefined), ['sorrow', 'torment'], {})
  expect(lanes.map(({ chosen }) => chosen.map(({ one }) => one.name))).toEqual([
    ['a', 'b', 'e'],
    ['c', 'd'],
  ])
})
