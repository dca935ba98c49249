/**
 * Tests of agents start hundreds of thousands of programs, and those of the lab boot VMs: more than two slow cores
 * do in the time of a CI. So `npm test` takes half of both, and for each commit another half: it names the commit in
 * LAB_TEST_COMMIT. `LAB_TEST_ALL=1 npm test` takes all, and so does vitest by itself.
 */
import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/** Whether a test is in a commit's half. */
export const isInHalf = (test: string, commit: string): boolean =>
  digest(`${commit} ${test}`)[0]! % 2 === 0

/** Files of tests/e2e that each commit runs: the ways that everybody goes. */
const always = ['crash', 'lab', 'scenarios', 'terminal']

/** The files of tests/e2e that are left to other commits; none without a commit. */
export function filesOfOthers(commit: string | undefined): string[] {
  if (!commit) return []
  const all = readdirSync(join(import.meta.dirname, 'e2e'))
    .filter((file) => file.endsWith('.test.ts') && !always.includes(file.replace('.test.ts', '')))
    .map((file) => ({ file, at: digest(`${commit} ${file}`).toString('hex') }))
    .toSorted((one, other) => one.at.localeCompare(other.at))
  return all.slice(Math.ceil(all.length / 2)).map(({ file }) => `tests/e2e/${file}`)
}

/** Why a test is skipped that is in the other half. */
export const inOtherHalf = 'in the half of the tests that other commits take'
