import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isDirectory } from './paths.ts'
import { sourceOf, type Node } from './syntax.ts'
import { asPath, type Place, type SetValue, type Unknown, type Value } from './value.ts'

/**
 * The directories from which frameworks read hosts, and the name of a host's file there: clan, blueprint,
 * nixos-unified, ez-configs, snowfall and easy-hosts.
 */
const customary: [directory: string, file: string][] = [
  ['machines', 'configuration.nix'],
  ['hosts', 'configuration.nix'],
  ['configurations/nixos', 'default.nix'],
  ['nixos-configurations', 'default.nix'],
  ['systems/x86_64-linux', 'default.nix'],
  ['x86_64-nixos', 'default.nix'],
]

/** The customary name of a host's file in a directory of hosts. */
export const customaryFile = (directory: string): string =>
  customary.find(([name]) => directory.endsWith(`/${name}`))?.[1] ?? 'default.nix'

/** The directory from which an unknown function most likely reads the hosts, judging by its argument. */
export function givenHosts(given: Value, node: Node): string | undefined {
  if (given.is !== 'set') return undefined
  const of = (attr: string): string | undefined => {
    const value = given.attrs.get(attr)?.value()
    const path = value && value.is !== 'unknown' ? asPath(value) : undefined
    // blueprint takes a relative path as a string too
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

/** The same for a module, or a function that is given only the flake that contains the node. */
export const flakeHostsAt = (node: Node): string | undefined =>
  hostsBelow(flakeOf(sourceOf(node).path))

/** The customary directory of hosts below a directory, else the directory itself, unless it is the flake's. */
function hostsBelow(directory: string): string | undefined {
  const there = customary.map(([name]) => join(directory, name)).find(isDirectory)
  if (there) return there
  return isDirectory(directory) && !existsSync(join(directory, 'flake.nix')) ? directory : undefined
}

/** The set of hosts that an unknown function or a module is given, and the attribute path to it. */
export function givenSet(given: Value, before: string[] = []): Unknown['listed'] {
  if (given.is !== 'set' || before.length > 2) return undefined
  const own = [...given.attrs].filter(
    // snowfall's `systems` only holds special settings of hosts
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

/** If a set of hosts has a level for each kind or platform: that of the lab. A host may itself be called `nixos`. */
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

/** A directory given by the options of a framework's module, such as `ezConfigs.root`. */
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

/** Whether an option of a framework is not about NixOS hosts. */
const isOfOthers = (option: string): boolean =>
  /^(darwin|home)|modules|secrets|overlays|packages|specialArgs/i.test(option)

/**
 * Where the hosts are, by the options of a framework's module: a directory or a set. For ez-configs, and for easy-hosts
 * with `autoConstruct`, it is a directory; their sets only hold special settings of hosts.
 */
export function toldHosts(options: Value): Pick<Unknown, 'directory' | 'listed' | 'told'> {
  const ez = at(options, 'ezConfigs')
  if (ez) return { directory: ezDirectory(ez), told: true }
  const all = options.is === 'set' ? [...options.attrs.values()].map(({ value }) => value()) : []
  const easy = all.find((one) => at(one, 'autoConstruct') && has(one, 'autoConstruct'))
  if (easy) return { directory: easyDirectory(easy), told: true }
  return { directory: toldDirectory(options), listed: givenSet(options) }
}

/** The directory of ez-configs: below its root, or one set explicitly. */
function ezDirectory(ez: Value): string | undefined {
  const root = pathAt(ez, 'root')
  return (
    pathAt(ez, 'nixos', 'configurationsDirectory') ?? (root && join(root, 'nixos-configurations'))
  )
}

/** The directory of easy-hosts: one for each platform, or one for all; none if `onlySystem` is another platform. */
function easyDirectory(easy: Value): string | undefined {
  const path = pathAt(easy, 'path')
  if (path === undefined) return undefined
  const only = at(easy, 'onlySystem')
  if (only && only.is === 'text') return /^x86_64-(nixos|linux)$/.test(only.text) ? path : undefined
  if (only) return path
  const [nixos, linux] = [join(path, 'x86_64-nixos'), join(path, 'x86_64-linux')]
  return isDirectory(nixos) || !isDirectory(linux) ? nixos : linux
}

/** The value at an attribute path, if there is one. */
const at = (value: Value, ...names: string[]): Value | undefined =>
  names.reduce<Value | undefined>(
    (of, name) => (of?.is === 'set' ? of.attrs.get(name)?.value() : undefined),
    value,
  )

function pathAt(value: Value, ...names: string[]): string | undefined {
  const of = at(value, ...names)
  return of && asPath(of)
}

/** Whether the option is set, and not to `false`. */
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
