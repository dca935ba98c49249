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
          sequence: { groupOrder: 0 },
        },
      },
      {
        // one lab for all of them: two VMs fill a machine of two cores
        test: {
          ...shared,
          name: 'e2e',
          include: ['tests/{agents,e2e}/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
