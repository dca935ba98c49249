/**
 * The tests of the agents start hundreds of thousands of programs, and those of the lab boot VMs: too much for two
 * slow cores in the time that a CI allows. So `npm test` runs a quarter of the slow files, chosen by the commit in
 * LAB_TEST_COMMIT. `LAB_TEST_ALL=1 npm test` runs all, and so does vitest by itself.
 */
import { createHash } from 'node:crypto'

/**
 * Four parts that take about as long. A file runs as a whole or not at all, because its tests may build on each
 * other. Files that are not listed run each time.
 */
const parts: Record<'agents' | 'e2e', string[]>[] = [
  {
    agents: ['chezmoi-conflict', 'chezmoi-rounds', 'chezmoi-unusual', 'upgrade-reasons'],
    e2e: ['by-hand', 'layer'],
  },
  {
    agents: ['full-disk', 'remotes', 'upgrade-laptop', 'upgrade-unusual'],
    e2e: ['nixos', 'subjects', 'uplink'],
  },
  {
    agents: ['chezmoi-clones', 'chezmoi-keep', 'full-dotfiles', 'mutants', 'upgrade-machine'],
    e2e: ['chaos', 'disk'],
  },
  {
    agents: ['chezmoi', 'golden', 'upgrade'],
    e2e: ['promises', 'tools', 'user'],
  },
]

/** The slow files that this commit leaves out; none without a commit. */
export function filesOfOthers(commit: string): string[] {
  if (!commit) return []
  const own = createHash('sha256').update(commit).digest()[0]! % parts.length
  return parts
    .filter((_, index) => index !== own)
    .flatMap((others) => Object.entries(others))
    .flatMap(([directory, names]) => names.map((name) => `tests/${directory}/${name}.test.ts`))
}
