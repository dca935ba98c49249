/**
 * Tests of agents start hundreds of thousands of programs, and those of the lab boot VMs: more than two slow cores
 * do in the time of a CI. So `npm test` runs a third of the slow files, and for each commit another third: it names
 * the commit in LAB_TEST_COMMIT. `LAB_TEST_ALL=1 npm test` takes all, and so does vitest by itself.
 */
import { createHash } from 'node:crypto'

/**
 * Three parts that take about as long. A file is in or out as a whole, as its tests may build on each other.
 * All other files run each time.
 */
const thirds: Record<'agents' | 'e2e', string[]>[] = [
  {
    agents: ['chezmoi', 'chezmoi-rounds', 'golden', 'upgrade'],
    e2e: ['by-hand', 'nixos', 'uplink'],
  },
  {
    agents: [
      'chezmoi-conflict',
      'chezmoi-unusual',
      'full-disk',
      'remotes',
      'upgrade-laptop',
      'upgrade-machine',
    ],
    e2e: ['chaos', 'disk', 'promises', 'user'],
  },
  {
    agents: [
      'chezmoi-clones',
      'chezmoi-keep',
      'full-dotfiles',
      'mutants',
      'upgrade-reasons',
      'upgrade-unusual',
    ],
    e2e: ['layer', 'subjects', 'tools'],
  },
]

/** The files that are left to other commits; none without a commit. */
export function filesOfOthers(commit: string): string[] {
  if (!commit) return []
  const own = createHash('sha256').update(commit).digest()[0]! % thirds.length
  return thirds
    .filter((_, index) => index !== own)
    .flatMap((others) => Object.entries(others))
    .flatMap(([directory, names]) => names.map((name) => `tests/${directory}/${name}.test.ts`))
}
