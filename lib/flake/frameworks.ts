import { existsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { sourceOf, type Node } from './syntax.ts'
import { asPath, type Place, type SetValue, type Unknown, type Value } from './value.ts'

/**
 * Where frameworks that make hosts of what is in a directory look for them, and the file of a host there: clan,
 * blueprint, nixos-unified, ez-configs, snowfall and easy-hosts.
 */
const customary: [directory: string, file: string][] = [
  ['machines', 'configuration.nix'],
  ['hosts', 'configuration.nix'],
  ['configurations/nixos', 'default.nix'],
  ['nixos-configurations', 'default.nix'],
  ['systems/x86_64-linux', 'default.nix'],
  ['x86_64-nixos', 'default.nix'],
]

/** The file that a host has in a directory of hosts, by the custom. */
export const customaryFile = (directory: string): string =>
  customary.find(([name]) => directory.endsWith(`/${name}`))?.[1] ?? 'default.nix'

/** The directory that an unknown function most likely reads the hosts from, by what it is given. */
export function givenHosts(given: Value, at: Node): string | undefined {
  if (given.is !== 'set') return undefined
  const of = (attr: string): string | undefined => {
    const value = given.attrs.get(attr)?.value()
    const path = value && value.is !== 'unknown' ? asPath(value) : undefined
    // blueprint takes a word as well
    return path ?? (value?.is === 'text' ? join(flakeOf(sourceOf(at).path), value.text) : undefined)
  }
  const named = ['src', 'dir', 'directory', 'root', 'prefix'].map(of).find(Boolean)
  if (named !== undefined) return hostsBelow(named)
  return given.attrs.has('inputs') || given.attrs.has('self') ? flakeHostsAt(at) : undefined
}

/** The same of a module or a function that is given nothing but the flake which the node is in. */
export const flakeHostsAt = (at: Node): string | undefined => hostsBelow(flakeOf(sourceOf(at).path))

/** The customary directory there, else the directory itself, unless it is the flake's. */
function hostsBelow(directory: string): string | undefined {
  const there = customary.map(([name]) => join(directory, name)).find(isDirectory)
  if (there) return there
  return isDirectory(directory) && !existsSync(join(directory, 'flake.nix')) ? directory : undefined
}

/** The set of hosts that an unknown function is given, or a module, and the attributes that lead to it. */
export function givenSet(given: Value, before: string[] = []): Unknown['listed'] {
  if (given.is !== 'set' || before.length > 2) return undefined
  const own = [...given.attrs].filter(
    ([name]) => !['inputs', 'self', 'imports', 'flake'].includes(name),
  )
  for (const [name, attr] of own) {
    if (!/^(nixos)?-?(hosts|machines|nodes|systems|configurations)$/i.test(name)) continue
    const value: Value = attr.value()
    const place = value.is === 'set' ? value.places.find(isAttrset) : undefined
    if (place) return { ...(value as SetValue), path: [...before, name].join('.') }
  }
  for (const [name, attr] of own) {
    const deeper = givenSet(attr.value(), [...before, name])
    if (deeper) return deeper
  }
  return undefined
}

const isAttrset = ({ node }: Place): boolean => node.type.endsWith('attrset_expression')

/** A directory that a framework's module is told of by its options, such as `ezConfigs.root`. */
function toldDirectory(options: Value, depth = 0): string | undefined {
  if (options.is !== 'set' || depth > 2) return undefined
  for (const [name, attr] of options.attrs) {
    if (['inputs', 'self', 'imports', 'flake'].includes(name)) continue
    const value = attr.value()
    const found =
      value.is === 'path'
        ? value.listing === undefined && hostsBelow(value.text)
        : toldDirectory(value, depth + 1)
    if (found) return found
  }
  return undefined
}

/**
 * What a framework's module is told of the hosts: the directory in which they are, or the set of them. ez-configs
 * and easy-hosts with `autoConstruct` have a directory, and in the set no more than what is special about a host.
 */
export function toldHosts(options: Value): Pick<Unknown, 'directory' | 'listed'> {
  const directory = toldDirectory(options)
  const isRead =
    directory !== undefined && (has(options, 'ezConfigs') || has(options, 'autoConstruct'))
  return { directory, listed: isRead ? undefined : givenSet(options) }
}

/** Whether there is such an option, and it is not false. */
function has(options: Value, option: string, depth = 0): boolean {
  if (options.is !== 'set' || depth > 2) return false
  return [...options.attrs].some(([name, attr]) =>
    name === option
      ? attr.literals[0]?.parent?.parent?.childForFieldName('expression')?.text !== 'false'
      : !['inputs', 'self', 'imports', 'flake'].includes(name) &&
        has(attr.value(), option, depth + 1),
  )
}

const isDirectory = (path: string): boolean =>
  statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

function flakeOf(file: string): string {
  const above = dirname(file)
  return above === file || existsSync(join(above, 'flake.nix')) ? above : flakeOf(above)
}
