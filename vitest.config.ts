import { defineConfig } from 'vitest/config'
import { filesOfOthers } from './tests/parts.ts'

const shared = { environment: 'node' as const, testTimeout: 60_000, hookTimeout: 60_000 }
const others = filesOfOthers(process.env['LAB_TEST_COMMIT'] ?? '')
// what keeps two VMs busy, or asks how soon a terminal answers
const alone = ['scenarios', 'terminal'].map((name) => `tests/e2e/${name}.test.ts`)

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: ['tests/{lib,tasks,nix,terminal}/**/*.test.ts', 'tests/*.test.ts'],
          // the default leaves one core out: half of a machine of two
          maxWorkers: '100%',
          sequence: { groupOrder: 0 },
        },
      },
      {
        // each file has a scratch root of its own, and waits a lot
        test: {
          ...shared,
          name: 'agents',
          include: ['tests/agents/**/*.test.ts'],
          exclude: others,
          maxWorkers: 3,
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        // each file has a lab of its own, whose VMs wait a lot
        test: {
          ...shared,
          name: 'e2e',
          include: ['tests/e2e/**/*.test.ts'],
          exclude: [...alone, ...others],
          maxWorkers: 2,
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          ...shared,
          name: 'e2e alone',
          include: alone,
          fileParallelism: false,
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
})
