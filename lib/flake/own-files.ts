import { existsSync, readFileSync, readdirSync, statSync, type Dirent } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { word } from './entry.ts'
import { customaryFile } from './frameworks.ts'
import { isDirectory } from './paths.ts'
import { mentions, pathsOf, seenOfAll, type Seen } from './seen.ts'
import { sourceOf } from './syntax.ts'
import type { SetValue, Unknown, Value } from './value.ts'

/** Where a flake reads the files of one host. */
export interface OwnFiles {
  /** Absolute path as the flake names it: a directory or a file. */
  path: string
  /** The file in it that is the host's configuration; equal to `path` when the host is one file. */
  main: string
  /** A file of another host, if such files are no modules: the new one must be like it. */
  example?: NoModule
}

/** A host's file that is no module. */
export interface NoModule {
  file: string
  /** Whether it makes the whole system, as in `web = import ./hosts/web inputs`; else the flake takes parts from it. */
  whole: boolean
}

/** A host's files in its own directory, where this project puts them by default. */
export const usualFiles = (flake: string, name: string): OwnFiles =>
  asFiles(join(flake, 'hosts', name), name)

/**
 * Where a new host's files go, judging by where the flake reads the files of its other hosts.
 * @returns undefined where the source does not show it
 */
export function filesLikeOthers(
  flake: string,
  hosts: SetValue | Unknown,
  name: string,
): OwnFiles | undefined {
  if (hosts.is === 'unknown') {
    return hosts.directory === undefined || !inside(flake, hosts.directory)
      ? undefined
      : filesIn(hosts.directory, name)
  }
  const votes = new Map<string, number>()
  const example = new Map<string, NoModule | undefined>()
  const all = seenOfAll(hosts)
  for (const [other, { listing, value }] of hosts.attrs) {
    const seen = all.get(other)
    if (listing) return filesOfListing(listing.directory, seen, name)
    const main = seen && mainOf(pathsOf(seen, other, flake), other, flake)
    if (main === undefined) continue
    const path = renamedPath(flake, main, other, name)
    votes.set(path, (votes.get(path) ?? 0) + (existsSync(main) ? 1.5 : 1))
    // the host may be there already, and is no example for itself
    if (other !== name || !example.has(path)) example.set(path, noModule(value(), seen!, main))
  }
  const [best] = [...votes].toSorted(([, a], [, b]) => b - a)
  if (best) return { ...asFiles(best[0], name), example: example.get(best[0]) }
  const directory = directoryOf(hosts, flake)
  return directory === undefined ? undefined : filesIn(directory, name, 'default.nix')
}

/**
 * The directory with a subdirectory for each host, where the source does not show what reads it: it may be a module
 * that is given the host's name. A single host proves nothing, as many are named like a directory in `modules`.
 * Neither do directories beside, below or around the files that name the hosts: they may all be modules of the flake.
 */
function directoryOf({ attrs }: SetValue, flake: string): string | undefined {
  const names = [...attrs.keys()]
  const [first, second] = names
  if (first === undefined || second === undefined) return undefined
  const written = [...attrs.values()]
    .flatMap(({ literals }) => literals.map((one) => dirname(sourceOf(one).path)))
    .filter((above) => above !== flake)
  const fitting = directoriesIn(flake, 500).filter(
    (directory) =>
      names.every((name) => isDirectory(join(directory, name))) &&
      rankOf(relative(flake, join(directory, first)), first) < 2 &&
      written.every(
        (above) =>
          !`${directory}/`.startsWith(`${above}/`) && !`${above}/`.startsWith(`${directory}/`),
      ),
  )
  return fitting.length === 1 ? fitting[0] : undefined
}

/** Which of a host's own paths is its configuration; the path of the flake itself does not count. */
export function mainOf(paths: string[], name: string, flake: string): string | undefined {
  const rank = (path: string): number => rankOf(relative(flake, path), name)
  // a host named after its role may read both `roles/server` and `hosts/server`
  const isAmongHosts = (path: string): boolean =>
    /(^|\/)(hosts?|machines?|systems?|nodes?)\//.test(relative(flake, path))
  const [first] = paths.toSorted(
    (a, b) =>
      rank(a) - rank(b) || Number(isAmongHosts(b)) - Number(isAmongHosts(a)) || a.length - b.length,
  )
  return first === undefined || rank(first) === 2 ? undefined : first
}

/** Usual names of a host's configuration in the host's directory. */
const configurations = /^(default|configuration|config|nixos)\.nix$/

/** 0 for a path, relative to the flake, that most likely is a host's configuration; 2 for one that is not. */
function rankOf(path: string, name: string): number {
  const file = basename(path)
  if (/hardware|disk|disko|secret|home(?!lab)|\bhm\b|users?\b/.test(path.replaceAll(name, '')))
    return 2
  // a patch or a key named after the host
  if (/\.(patch|diff|ya?ml|json|toml|age|pub|key|pem|txt|png|jpe?g|svg|sh|conf)$/.test(file))
    return 2
  return file === name || file === `${name}.nix` || configurations.test(file) ? 0 : 1
}

/** A host's files, given the path that the flake names: a directory, or a file in it. */
export function asFiles(path: string, name: string): OwnFiles {
  if (!path.endsWith('.nix')) return { path, main: join(path, 'default.nix') }
  // `hosts/web.host.nix` is all that `web` has: the other files in `hosts` belong to other hosts
  const [file, above] = [basename(path), basename(dirname(path))]
  const isAll = file === `${name}.nix` || (mentions(file, name) && !mentions(above, name))
  return isAll ? { path, main: path } : { path: dirname(path), main: path }
}

/** The file of a host's configuration, if that file is no module. */
export function noModule(made: Value, { imported }: Seen, main: string): NoModule | undefined {
  const file = main.endsWith('.nix') ? main : join(main, 'default.nix')
  const whole = made.is === 'unknown' && sourceOf(made.node).path === file
  return whole || imported.includes(main) ? { file, whole } : undefined
}

const inside = (flake: string, path: string): boolean => !relative(flake, path).startsWith('..')

/** The same path for another host: the name is replaced where it is a whole word. */
export const renamedPath = (flake: string, path: string, from: string, to: string): string =>
  join(
    flake,
    relative(flake, path).replaceAll(word(from, false), () => to),
  )

/** In a directory that the flake lists: by the paths that it makes of the listed names, else by what is there. */
function filesOfListing(directory: string, seen: Seen | undefined, name: string): OwnFiles {
  // in a path, a listed name has lost its first slash
  const listed = `${directory.slice(1)}/*`
  const rank = (one: string): number => rankOf(relative(directory, one), name)
  const ofName = (one: string): string => resolve(one.replace(listed, name))
  const [path] = (seen?.paths ?? [])
    .filter((one) => one.includes(listed))
    .map(ofName)
    .filter((one) => one.startsWith(`${directory}/`))
    .toSorted((a, b) => rank(a) - rank(b) || a.length - b.length)
  // the flake may first read another file beside the configuration, such as `meta.nix`
  const own = path !== undefined && rank(path) === 0
  // of the directory of a host, nix reads the `default.nix`
  const like = filesIn(directory, name, 'default.nix')
  const files = path?.endsWith('.nix') && (own || !like.seen) ? asFiles(path, name) : like
  if (!own || !seen?.imported.map(ofName).includes(path)) return files
  const others = entriesOf(directory, name)
    .map((one) => renamedPath(directory, files.main, name, one.replace(/\.nix$/, '')))
    .filter((one) => existsSync(one))
  return { ...files, example: { file: others[0] ?? files.main, whole: false } }
}

/**
 * In a directory whose entries are hosts: in the form of the other entries; `seen` is false where they have none.
 * @param customary name of a host's file there, unless the others have only files of other names
 */
function filesIn(
  directory: string,
  name: string,
  customary = customaryFile(directory),
): OwnFiles & { seen: boolean } {
  const others = entriesOf(directory, name)
  const inner = others.filter((one) => statSync(join(directory, one)).isDirectory())
  if (inner.length === 0 && others.some((one) => one.endsWith('.nix'))) {
    return { ...asFiles(join(directory, `${name}.nix`), name), seen: true }
  }
  const has = (file: string): boolean => inner.some((one) => existsSync(join(directory, one, file)))
  const usual = ['default', 'configuration', 'config', 'nixos'].map((one) => `${one}.nix`)
  const [file] = [customary, ...usual].filter(has)
  const path = join(directory, name)
  return { path, main: join(path, file ?? customary), seen: file !== undefined }
}

const entriesOf = (directory: string, but: string): string[] =>
  existsSync(directory)
    ? readdirSync(directory).filter(
        (one) =>
          !one.startsWith('.') &&
          one !== 'default.nix' &&
          one !== but &&
          one !== `${but}.nix` &&
          existsSync(join(directory, one)),
      )
    : []

/**
 * The file that lists the hosts of a directory, if there is one: it names at least half of the entries, so a new
 * file there probably does nothing until it is named as well.
 */
export function listingFile(
  flake: string,
  directory: string,
  but: string,
): { file: string; line: number; like: string } | undefined {
  const entries = entriesOf(directory, but)
  for (const file of nixFiles(flake, 500)) {
    const above = relative(directory, file)
    if (!above.startsWith('..') && above !== 'default.nix') continue
    const text = readFileSync(file, 'utf8')
    const found = [...text.matchAll(/(?<![\w"'./])\.{1,2}\/[\w.+/-]*\w/g)].flatMap((path) => {
      const [entry] = relative(directory, resolve(dirname(file), path[0])).split('/')
      return entries.includes(entry!) ? [{ entry: entry!, index: path.index }] : []
    })
    if (new Set(found.map(({ entry }) => entry)).size * 2 < Math.max(entries.length, 1)) continue
    const [first] = found
    const line = text.slice(0, first!.index).split('\n').length
    return { file, line, like: first!.entry.replace(/\.nix$/, '') }
  }
  return undefined
}

/** The Nix files of a flake, those at the top first; hidden directories and symlinks are skipped. */
const nixFiles = (flake: string, limit: number): string[] =>
  below(flake, (entry) => entry.isFile() && entry.name.endsWith('.nix'), limit)

/** The directories of a flake, in the same way. */
const directoriesIn = (flake: string, limit: number): string[] =>
  below(flake, (entry) => entry.isDirectory(), limit)

function below(directory: string, wanted: (entry: Dirent) => boolean, limit: number): string[] {
  const found: string[] = []
  const waiting = [directory]
  while (waiting.length > 0 && found.length < limit) {
    const at = waiting.shift()!
    for (const entry of readdirSync(at, { withFileTypes: true })) {
      if (entry.name.startsWith('.') || entry.name === 'node_modules') continue
      if (entry.isDirectory()) waiting.push(join(at, entry.name))
      if (wanted(entry)) found.push(join(at, entry.name))
    }
  }
  return found
}
