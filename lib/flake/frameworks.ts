import { existsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { sourceOf, type Node } from './syntax.ts'
import type { Value } from './value.ts'

/**
 * Where frameworks that make hosts of what is in a directory look for them: clan, blueprint,
 * nixos-unified, ez-configs and snowfall.
 */
const customary = [
  'machines',
  'hosts',
  'configurations/nixos',
  'nixos-configurations',
  'systems/x86_64-linux',
]

/** The directory that an unknown function most likely reads the hosts from, by what it is given. */
export function givenHosts(given: Value, at: Node): string | undefined {
  if (given.is !== 'set') return undefined
  const of = (attr: string): string | undefined => {
    const value = given.attrs.get(attr)?.value()
    return value?.is === 'path' ? value.text : undefined
  }
  const named = ['src', 'dir', 'directory', 'root', 'prefix'].map(of).find(Boolean)
  if (named !== undefined) return hostsBelow(named)
  return given.attrs.has('inputs') || given.attrs.has('self') ? flakeHostsAt(at) : undefined
}

/** The same of a module or a function that is given nothing but the flake which the node is in. */
export const flakeHostsAt = (at: Node): string | undefined => hostsBelow(flakeOf(sourceOf(at).path))

/** The customary directory there, else the directory itself, unless it is the flake's. */
function hostsBelow(directory: string): string | undefined {
  const there = customary.map((name) => join(directory, name)).find(isDirectory)
  if (there) return there
  return isDirectory(directory) && !existsSync(join(directory, 'flake.nix')) ? directory : undefined
}

const isDirectory = (path: string): boolean =>
  statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

function flakeOf(file: string): string {
  const above = dirname(file)
  return above === file || existsSync(join(above, 'flake.nix')) ? above : flakeOf(above)
}
