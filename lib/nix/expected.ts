import type { Facts } from './host.ts'

/**
 * What the source plan (its Task 5) expects of a host's configuration: every lab host is headless,
 * upgrades itself and keeps a golden generation; the two named in the plan have the plan's services.
 */
function expectedOf(host: string): Partial<Facts> {
  const every = { desktop: [], autoUpgradeEnable: true, goldenEnable: true }
  if (!['sorrow', 'torment'].includes(host)) return every
  return { ...every, cli: ['atuin'], networking: ['openssh', 'ssh', 'syncthing', 'tailscale'] }
}

export interface Difference {
  fact: string
  expected: string
  found: string
}

/** The facts that differ from what the plan expects. */
export const differences = (host: string, facts: Facts): Difference[] =>
  Object.entries({ hostName: host, ...expectedOf(host) })
    .map(([fact, expected]) => ({
      fact,
      expected: JSON.stringify(expected),
      found: JSON.stringify(facts[fact as keyof Facts]) ?? 'nothing',
    }))
    .filter(({ expected, found }) => expected !== found)
