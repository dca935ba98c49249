import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { evaluate, realise } from './nix.ts'
import { labFlake, project } from './settings.ts'

/** What the lab needs to know of a host's configuration: `nix/lab/facts.nix` says where it stands. */
export interface Facts {
  hostName: string
  primaryUser: string
  desktop: string[]
  cli: string[]
  networking: string[]
  autoUpgradeEnable: boolean
  goldenEnable: boolean
  /** A systemd calendar expression. */
  schedule: string
  /** Units that a boot must bring up to count as good. */
  validateServices: string[]
  /** Services that the configuration declares, by the names of its lists. */
  declared: string[]
  /** The unit of each declared service that has one. */
  units: Record<string, string>
  /** What this guest cannot have, with the reason. */
  unavailable: Record<string, string>
  syncthingAddress: string
}

export interface Host {
  name: string
  facts: Facts
  /** Store path of `system.build.toplevel`, known before it is built. */
  toplevel: string
  derivation: string
}

/**
 * Reads a host's configuration in one evaluation.
 * @param attribute `labConfigurations` or `nixosConfigurations`
 * @throws Failure with nix's own words
 */
export async function readHost(
  name: string,
  attribute: string,
  store: string[],
  flake = labFlake(),
): Promise<Host> {
  const facts = readFileSync(join(project, 'nix/lab/facts.nix'), 'utf8')
  const apply = `host: { facts = (${facts}) host; toplevel = host.config.system.build.toplevel.outPath; derivation = host.config.system.build.toplevel.drvPath; }`
  const read = await evaluate<Omit<Host, 'name'>>(flake, `${attribute}.${name}`, apply, store)
  return { name, ...read }
}

/** Builds the toplevels of hosts; what is built already costs nothing. */
export const buildHosts = (hosts: Host[], store: string[]): Promise<string[]> =>
  realise(
    hosts.map(({ derivation }) => derivation),
    store,
  )
