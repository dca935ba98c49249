import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { isDirectory, isFile } from './paths.ts'
import { importedFrom, inOneEvaluation, recordingImports } from './trace.ts'
import type { Node } from './syntax.ts'
import { argument, type SetValue, type Thunk, type Unknown, type Value } from './value.ts'

/** What the source shows of a host, including the arguments of unknown functions. */
export interface Seen {
  /** Absolute paths that the host names or imports. */
  paths: string[]
  texts: string[]
  /** Values that the host uses and that are unknown; those with the fault `absent` do not exist. */
  unknowns: Unknown[]
  /** Paths that the flake imports itself, and not as a module: it calls what is there, or takes something from it. */
  imported: string[]
  /** Paths that most of the other hosts read too. */
  shared?: string[]
}

/** Limit of values to look at: a host has fewer, so more of them means that the search is inside a library. */
const largest = 4000

/** Collects everything that the source shows of a host's value. */
export function seenIn(value: Thunk, node: Node): Seen {
  const seen: Seen = { paths: [], texts: [], unknowns: [], imported: [] }
  const before = new Set<Value>()
  const modules = new Set<string>()
  const asModule =
    (one: Thunk): Thunk =>
    () => {
      const found = one()
      const from = importedFrom(found)
      if (from !== undefined && found.is !== 'list') modules.add(from)
      return found
    }
  // the nodes of a hive are modules themselves
  const waiting: Thunk[] = [asModule(value)]
  const look = (one: Value): void => {
    if (before.has(one)) return
    before.add(one)
    if (one.is === 'unknown') {
      seen.unknowns.push(one)
      waiting.push(...(one.given ?? []))
    } else if (one.is === 'set') {
      // a flake or the set of inputs, which many hosts are given: its content is not the host's own
      if (one.attrs.has('outPath') || one.attrs.has('self')) return
      for (const [name, attr] of one.attrs)
        waiting.push(
          /^(modules?|imports|config(uration)?)$/.test(name) ? asModule(attr.value) : attr.value,
        )
      waiting.push(...one.gaps.map((gap) => () => gap))
    } else if (one.is === 'list') {
      waiting.push(...one.items.map(asModule), ...one.gaps.map((gap) => () => gap))
    } else if (one.is === 'function') {
      if (one.lambda) waiting.push(() => one.call(() => argument(node)))
    } else if (one.is === 'truth') return
    else if (one.is === 'path' || one.text.startsWith('/')) seen.paths.push(one.text)
    else seen.texts.push(one.text)
  }
  const imported = recordingImports(() =>
    inOneEvaluation(() => {
      for (let count = 0; waiting.length > 0 && count < largest; count++) look(waiting.shift()!())
    }),
  )
  seen.paths.push(...imported)
  seen.imported = imported.filter((path) => !modules.has(path))
  return seen
}

/**
 * What the source shows of each host. A path that most of the other hosts read too is not a host's own, even if it
 * contains the host's name: if all import `modules/laptop.nix`, it is not the file of the host `laptop`.
 */
export function seenOfAll(hosts: SetValue): Map<string, Seen> {
  const found = looked.get(hosts) ?? lookAtAll(hosts)
  looked.set(hosts, found)
  return found
}

/** Cached, because imports are recorded only when a value is first computed. */
const looked = new WeakMap<SetValue, Map<string, Seen>>()

function lookAtAll({ attrs }: SetValue): Map<string, Seen> {
  const all = [...attrs].flatMap(([name, { value, literals, listing }]) => {
    const node = literals[0] ?? listing?.node
    return node ? [{ name, seen: seenIn(value, node) }] : []
  })
  const paths = new Map(all.map(({ name, seen }) => [name, new Set(seen.paths)]))
  return new Map(
    all.map(({ name, seen }) => {
      // `web-vm` may well be made of the files of `web`
      const others = [...paths].filter(([one]) => !one.includes(name) && !name.includes(one))
      const isOwn = (path: string): boolean =>
        others.length === 0 || others.filter(([, of]) => of.has(path)).length * 2 <= others.length
      const shared = seen.paths.filter((path) => !isOwn(path))
      return [name, { ...seen, paths: seen.paths.filter(isOwn), shared }]
    }),
  )
}

/** Whether a path or text contains a name as a whole word; a hyphen does not end a word. */
export const mentions = (text: string, name: string): boolean =>
  text.split(/[^A-Za-z0-9_-]+/).some((word) => word === name)

/** The paths below a directory that contain a name. */
export const pathsOf = ({ paths }: Seen, name: string, below: string): string[] =>
  [...new Set(paths)].filter((path) => {
    const inside = relative(below, path)
    return !inside.startsWith('..') && mentions(inside, name)
  })

/** Such as `x86_64-linux`. */
export const isPlatform = (text: string): boolean =>
  /^(x86_64|aarch64|riscv64|i686|armv[5-7]l|powerpc64le|s390x|loongarch64)-[a-z]+$/.test(text)

/** The platform of a host if it is not the lab's, by the host's arguments, else by its own files. */
export function otherPlatform(seen: Seen, own: string[]): string | undefined {
  const asked = seen.unknowns.flatMap(({ node }) =>
    node.type === 'select_expression' ? node.text.split('.') : [],
  )
  const said = [...seen.texts, ...asked].filter(isPlatform)
  const all = said.length > 0 ? said : own.flatMap(platformsIn)
  return all.includes('x86_64-linux') ? undefined : all[0]
}

function platformsIn(path: string): string[] {
  const beside = /^(default|configuration)\.nix$/.test(path.split('/').at(-1)!)
  const files = isDirectory(path)
    ? readdirSync(path).map((name) => join(path, name))
    : !isFile(path)
      ? []
      : beside
        ? readdirSync(dirname(path)).map((name) => join(dirname(path), name))
        : [path]
  return files
    .filter((file) => file.endsWith('.nix') && isFile(file))
    .flatMap((file) => {
      const text = readFileSync(file, 'utf8')
      const set = /\b(?:hostPlatform|localSystem)(?:\.system)?\s*=\s*[^;"]*"([^"]+)"/g
      return [...text.matchAll(set)].map((found) => found[1]!)
    })
    .filter(isPlatform)
}
