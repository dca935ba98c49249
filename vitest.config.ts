import { defineConfig } from 'vitest/config'

const shared = { environment: 'node' as const, testTimeout: 60_000, hookTimeout: 60_000 }

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
          maxWorkers: 2,
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        // one lab for all of them: two VMs fill a machine of two cores
        test: {
          ...shared,
          name: 'e2e',
          include: ['tests/e2e/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
})
