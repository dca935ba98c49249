/**
 * Tests of agents start hundreds of thousands of programs, and those of the lab boot VMs: more than two slow cores
 * do in the time of a CI. So `npm test` leaves out half of the slow files, and for each commit another half: it names
 * the commit in LAB_TEST_COMMIT. `LAB_TEST_ALL=1 npm test` takes all, and so does vitest by itself.
 */
import { createHash } from 'node:crypto'

/**
 * Two halves that take about as long. A file is in or out as a whole, as its tests may build on each other.
 * All other files run each time.
 */
const halves: Record<'agents' | 'e2e', string[]>[] = [
  {
    agents: [
      'chezmoi',
      'chezmoi-clones',
      'chezmoi-rounds',
      'full-dotfiles',
      'mutants',
      'remotes',
      'upgrade',
      'upgrade-laptop',
      'upgrade-unusual',
    ],
    e2e: ['by-hand', 'disk', 'layer', 'subjects'],
  },
  {
    agents: [
      'chezmoi-conflict',
      'chezmoi-keep',
      'chezmoi-unusual',
      'full-disk',
      'golden',
      'upgrade-machine',
      'upgrade-reasons',
    ],
    e2e: ['chaos', 'nixos', 'promises', 'tools', 'uplink', 'user'],
  },
]

/** The files that are left to other commits; none without a commit. */
export function filesOfOthers(commit: string): string[] {
  if (!commit) return []
  const isEven = createHash('sha256').update(commit).digest()[0]! % 2 === 0
  return Object.entries(halves[isEven ? 1 : 0]!).flatMap(([directory, names]) =>
    names.map((name) => `tests/${directory}/${name}.test.ts`),
  )
}
