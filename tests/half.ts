/**
 * Tests of agents start hundreds of thousands of programs, and those of the lab boot VMs: more than two slow cores
 * do in the time of a CI. So `npm test` takes half of both, and for each commit another half: it names the commit in
 * LAB_TEST_COMMIT. `LAB_TEST_ALL=1 npm test` takes all, and so does vitest by itself.
 */
import { createHash } from 'node:crypto'

const isEven = (text: string): boolean => createHash('sha256').update(text).digest()[0]! % 2 === 0

/** Whether a test is in a commit's half. */
export const isInHalf = (test: string, commit: string): boolean => isEven(`${commit} ${test}`)

/** Files of tests/e2e that take turns, in two halves that take about as long; all others run each time. */
const halves = [
  ['by-hand', 'disk', 'layer', 'subjects'],
  ['chaos', 'nixos', 'promises', 'tools', 'uplink', 'user'],
] as const

/** The files of tests/e2e that are left to other commits; none without a commit. */
export const filesOfOthers = (commit: string): string[] =>
  commit ? halves[isEven(commit) ? 1 : 0].map((name) => `tests/e2e/${name}.test.ts`) : []

/** Why a test is skipped that is in the other half. */
export const inOtherHalf = 'in the half of the tests that other commits take'
