import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isDirectory } from './paths.ts'
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
export function givenHosts(given: Value, node: Node): string | undefined {
  if (given.is !== 'set') return undefined
  const of = (attr: string): string | undefined => {
    const value = given.attrs.get(attr)?.value()
    const path = value && value.is !== 'unknown' ? asPath(value) : undefined
    // blueprint takes a word as well
    return (
      path ?? (value?.is === 'text' ? join(flakeOf(sourceOf(node).path), value.text) : undefined)
    )
  }
  const named =
    pathAt(given, 'snowfall', 'root') ??
    ['src', 'dir', 'directory', 'root', 'prefix'].map(of).find(Boolean)
  if (named !== undefined) return hostsBelow(named)
  return given.attrs.has('inputs') || given.attrs.has('self') ? flakeHostsAt(node) : undefined
}

/** The same of a module or a function that is given nothing but the flake which the node is in. */
export const flakeHostsAt = (node: Node): string | undefined =>
  hostsBelow(flakeOf(sourceOf(node).path))

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
    // snowfall's `systems` say what is special about a host
    ([name, { value }]) =>
      !['inputs', 'self', 'imports', 'flake'].includes(name) &&
      !(name === 'systems' && (at(value(), 'hosts') ?? at(value(), 'modules'))),
  )
  for (const [name, attr] of own) {
    if (!/^(nixos)?-?(hosts|machines|nodes|systems|configurations)$/i.test(name)) continue
    const value: Value = attr.value()
    const kind = kindIn(value)
    const set = (kind === undefined ? undefined : at(value, kind)) ?? value
    const place = set.is === 'set' ? set.places.find(isWritten) : undefined
    if (place) return { ...(set as SetValue), path: [...before, name, kind ?? []].flat().join('.') }
  }
  for (const [name, attr] of own) {
    const deeper = givenSet(attr.value(), [...before, name])
    if (deeper) return deeper
  }
  return undefined
}

/** Where a set of hosts has one more for each kind or platform: that of the lab. A host may well be called `nixos`. */
function kindIn(hosts: Value): string | undefined {
  if (hosts.is !== 'set') return undefined
  const names = [...hosts.attrs.keys()]
  const isKind = (name: string): boolean => /^(nixos|darwin|home.*)$|-(linux|darwin)$/.test(name)
  const kind = names.every(isKind)
    ? names.find((name) => /^(nixos|x86_64-linux)$/.test(name))
    : undefined
  const inner = kind === undefined ? undefined : at(hosts, kind)
  const all = inner?.is === 'set' ? [...inner.attrs.values()] : []
  return all.length > 0 && all.every(({ value }) => value().is === 'set') ? kind : undefined
}

const isWritten = ({ node }: Place): boolean => /(attrset|list)_expression$/.test(node.type)

/** A directory that a framework's module is told of by its options, such as `ezConfigs.root`. */
function toldDirectory(options: Value, depth = 0): string | undefined {
  if (options.is !== 'set' || depth > 2) return undefined
  for (const [name, attr] of options.attrs) {
    if (['inputs', 'self', 'imports', 'flake'].includes(name) || isOfOthers(name)) continue
    const value = attr.value()
    const [first] = value.is === 'set' ? value.attrs.values() : []
    if (first?.listing) return first.listing.directory
    const found =
      value.is === 'path'
        ? value.listing === undefined && hostsBelow(value.text)
        : toldDirectory(value, depth + 1)
    if (found) return found
  }
  return undefined
}

/** What a framework is told that is not of NixOS hosts. */
const isOfOthers = (option: string): boolean =>
  /^(darwin|home)|modules|secrets|overlays|packages|specialArgs/i.test(option)

/**
 * What a framework's module is told of the hosts: the directory in which they are, or the set of them. ez-configs
 * and easy-hosts with `autoConstruct` have a directory, and in the set no more than what is special about a host.
 */
export function toldHosts(options: Value): Pick<Unknown, 'directory' | 'listed' | 'told'> {
  const ez = at(options, 'ezConfigs')
  if (ez) return { directory: ezDirectory(ez), told: true }
  const all = options.is === 'set' ? [...options.attrs.values()].map(({ value }) => value()) : []
  const easy = all.find((one) => at(one, 'autoConstruct') && has(one, 'autoConstruct'))
  if (easy) return { directory: easyDirectory(easy), told: true }
  return { directory: toldDirectory(options), listed: givenSet(options) }
}

/** ez-configs has a directory below its root, or another one by name. */
function ezDirectory(ez: Value): string | undefined {
  const root = pathAt(ez, 'root')
  return (
    pathAt(ez, 'nixos', 'configurationsDirectory') ?? (root && join(root, 'nixos-configurations'))
  )
}

/** easy-hosts has a directory for each platform, or all hosts are of `onlySystem`: none for the lab where it is another. */
function easyDirectory(easy: Value): string | undefined {
  const path = pathAt(easy, 'path')
  if (path === undefined) return undefined
  const only = at(easy, 'onlySystem')
  if (only && only.is === 'text') return /^x86_64-(nixos|linux)$/.test(only.text) ? path : undefined
  if (only) return path
  const [nixos, linux] = [join(path, 'x86_64-nixos'), join(path, 'x86_64-linux')]
  return isDirectory(nixos) || !isDirectory(linux) ? nixos : linux
}

/** What is at a path of names; none where there is no such name. */
const at = (value: Value, ...names: string[]): Value | undefined =>
  names.reduce<Value | undefined>(
    (of, name) => (of?.is === 'set' ? of.attrs.get(name)?.value() : undefined),
    value,
  )

function pathAt(value: Value, ...names: string[]): string | undefined {
  const of = at(value, ...names)
  return of && asPath(of)
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

function flakeOf(file: string): string {
  const above = dirname(file)
  return above === file || existsSync(join(above, 'flake.nix')) ? above : flakeOf(above)
}
