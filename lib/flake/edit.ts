import { existsSync, readdirSync, realpathSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { Failure, usage } from '../failure.ts'
import { byHand, placeOf, type ByHand } from './by-hand.ts'
import { isParsed } from './check.ts'
import { doubts, twinOf } from './doubts.ts'
import { copied, first, type Draft, type Flake } from './draft.ts'
import { word } from './entry.ts'
import { outline, refusal, type Why } from './hosts.ts'
import {
  asFiles,
  filesLikeOthers,
  listingFile,
  mainOf,
  renamedPath,
  noModule,
  usualFiles,
  type NoModule,
  type OwnFiles,
} from './own-files.ts'
import { pathsOf, seenIn, seenOfAll, type Seen } from './seen.ts'
import { faults, leaves, nixReader, nodesOf, sourceOf, type Node } from './syntax.ts'
import type { SetValue, Value } from './value.ts'

/** The result of adding a host to a flake. Lines count from 1; `file` is absolute. */
export type Addition =
  /** `line` is missing where the host's name is computed and so written nowhere. */
  (
    | { outcome: 'present'; file: string; line?: number }
    /** The flake lists `directory`, so there is nothing to edit. */
    | (Place & { outcome: 'discovered'; directory: string })
    /**
     * A function unknown to this module most likely lists `directory`, unless its hosts are `named` elsewhere; nix may
     * be able to tell.
     */
    | (Place & { outcome: 'likely'; directory: string; named: boolean; refused: Failure })
    | Edit
  ) & {
    /** Where the flake reads the host's files, or the best guess if its source does not show it. */
    own: OwnFiles
  }

type Place = ReturnType<typeof placeOf>

export interface Edit extends Draft {
  /** Absolute paths that the new entry names and the copied one does not. */
  paths: string[]
}

/**
 * Works out how to add a host to `flake.nix`, and writes nothing: follows what
 * `outputs.nixosConfigurations` evaluates to down to where its names are written, and copies one of
 * the hosts there.
 * @param directory absolute path of the flake's directory
 * @param like host to copy; by default one of the most common form
 * @throws Failure (usage) with file and line when the flake has no form that can be edited
 */
export async function addHost(directory: string, name: string, like?: string): Promise<Addition> {
  const flake = await read(directory, name)
  const { hosts } = flake.of
  const own = filesLikeOthers(directory, hosts, name) ?? usualFiles(directory, name)
  if (hosts.is === 'set' && hosts.attrs.has(name)) {
    const literal = hosts.attrs.get(name)!.literals[0]
    const place = literal ? placeOf(literal) : { file: flake.file }
    const files = ownFiles(flake, name) ?? own
    return { outcome: 'present', ...place, own: { ...files, example: own.example } }
  }
  const refuse = (why: Why): Failure => refusal(name, why, flake.of, own, directory)
  if (hosts.is === 'unknown') {
    const refused = refuse(hosts)
    if (hosts.directory === undefined || hosts.fault === 'syntax') throw refused
    const named = Boolean(hosts.listed ?? listingFile(directory, hosts.directory, name))
    const { node, directory: likely } = hosts
    return { outcome: 'likely', ...placeOf(node), directory: likely, named, refused, own }
  }
  const listing = [...hosts.attrs.values()].find((attr) => attr.listing)?.listing
  if (listing) {
    return { outcome: 'discovered', ...placeOf(listing.node), directory: listing.directory, own }
  }
  const draft =
    hosts.attrs.size > 0 ? copied(flake, name, refuse, like) : first(flake, name, refuse)
  // a symlink on the path may lead out of the flake
  if (relative(realpathSync(directory), realpathSync(dirname(draft.file))).startsWith('..')) {
    throw usage(`Cannot add \`${name}\`: the hosts are in \`${draft.file}\`, outside the flake`)
  }
  try {
    return await complete(flake, draft, name, own)
  } catch (error) {
    const [place] = hosts.places
    if (hosts.attrs.size > 0 || !place || !(error instanceof Failure)) throw error
    throw refuse({
      node: place.node,
      why: 'it is empty, and nothing shows what a host there looks like',
    })
  }
}

/**
 * Where a flake reads a host's files, or will once the host is added.
 * @throws Failure (usage) when nix cannot parse the flake, which then reads nothing
 * @returns `found`: where the hosts come from, in words; only if the flake lists a directory and needs no entry
 */
export async function readingPlace(
  directory: string,
  name: string,
): Promise<{ own: OwnFiles; found?: string }> {
  try {
    const addition = await addHost(directory, name)
    if (addition.outcome === 'discovered') {
      return { own: addition.own, found: `what is in ${addition.directory}` }
    }
    return addition.outcome === 'likely' && !addition.named
      ? { own: addition.own, found: `most likely what is in ${addition.directory}` }
      : { own: addition.own }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const { of } = await read(directory, name)
    if (of.hosts.is === 'unknown' && of.hosts.fault === 'syntax') throw error
    // add-to-flake will say what is wrong
    return { own: filesLikeOthers(directory, of.hosts, name) ?? usualFiles(directory, name) }
  }
}

/** The edit that a refusal tells the user to make by hand. */
export async function handWritten(directory: string, name: string): Promise<ByHand> {
  const { of } = await read(directory, name)
  const own = filesLikeOthers(directory, of.hosts, name) ?? usualFiles(directory, name)
  return byHand(of, name, own.path)
}

/** Reads a flake. Where the grammar finds a syntax error, nix decides whether it is one. */
async function read(directory: string, name: string): Promise<Flake> {
  const file = join(directory, 'flake.nix')
  const whole = new Set<string>()
  for (;;) {
    const of = outline(file, await nixReader({}, whole))
    const all = of.hosts.is === 'set' ? of.hosts.gaps : [of.hosts]
    const wrong = all.find(({ fault }) => fault === 'syntax')
    const path = wrong && sourceOf(wrong.node).path
    if (path === undefined || whole.has(path) || !(await isParsed(path))) {
      const made =
        of.hosts.is === 'unknown' && !of.hosts.told && isMadeFor(name, of.hosts.directory)
      const hosts = made ? { ...of.hosts, directory: undefined } : of.hosts
      return { directory, file, of: { ...of, hosts }, whole }
    }
    whole.add(path)
  }
}

/** Whether a directory holds only this host: then it does not show where the flake reads the others. */
const isMadeFor = (name: string, directory: string | undefined): boolean =>
  directory !== undefined &&
  existsSync(directory) &&
  readdirSync(directory).every((entry) => entry === name || entry === `${name}.nix`)

/** Where an existing host reads its files, if the source shows it. */
function ownFiles({ directory, of: { hosts } }: Flake, name: string): OwnFiles | undefined {
  const seen = hosts.is === 'set' ? seenOfAll(hosts).get(name) : undefined
  const main = seen && mainOf(pathsOf(seen, name, directory), name, directory)
  return main === undefined ? undefined : asFiles(main, name)
}

/** Verifies the draft, and adds notes, paths and the place of the host's files. */
async function complete(
  flake: Flake,
  draft: Draft,
  name: string,
  own: OwnFiles,
): Promise<Addition> {
  const { directory } = flake
  const { node: entry, seen, made } = await verify(flake, draft, name)
  const written = entry
    .descendantsOfType('path_expression')
    .filter(({ text }) => word(name, true).test(text) && !text.includes('${'))
    .map(({ text }) => resolve(dirname(draft.file), text))
  const reads = pathsOf(seen, name, directory)
  // a function may name optional files: only those that the copied host has count
  const like = draft.like
  const asLike = reads.filter(
    (path) => like !== undefined && existsSync(renamedPath(directory, path, name, like)),
  )
  const main = mainOf(reads, name, directory)
  const example =
    main !== undefined && like !== undefined ? noModuleOf(flake, like, main, name) : undefined
  const formed = example && main !== undefined ? mustBeLike(example, made, seen, main, name) : []
  const usual = usualFiles(directory, name).path
  // if a copy of the only host has no files of its own, what looked like the host's own files is not
  const isOnly = (flake.of.hosts as SetValue).attrs.size === 1
  const unseen = isOnly ? usualFiles(directory, name) : own
  const unread =
    existsSync(usual) &&
    ![...reads, ...written].some(
      (path) => path === usual || path.startsWith(`${usual}/`) || usual.startsWith(`${path}/`),
    )
  const told = [
    ...draft.notes,
    ...formed,
    ...doubts({ directory, hosts: flake.of.hosts as SetValue, entry, seen, name, like, reads }),
    ...(unread ? [`\`${usual}\` exists, but nothing in the new entry appears to read it`] : []),
  ]
  const twin = twinOf(flake.of.hosts as SetValue, seen, name, like)
  return {
    ...draft,
    notes: told.length > 0 ? told : twin,
    paths: [...new Set([...written, ...asLike])],
    own: main === undefined ? unseen : { ...asFiles(main, name), example },
  }
}

/** The file of a host that is like the main file of another, or else its own main file, if that is no module. */
function noModuleOf(
  { directory, of }: Flake,
  host: string,
  main: string,
  name: string,
): NoModule | undefined {
  const hosts = of.hosts as SetValue
  const seen = seenOfAll(hosts).get(host)!
  const made = hosts.attrs.get(host)!.value()
  const own = mainOf(pathsOf(seen, host, directory), host, directory)
  const like = noModule(made, seen, renamedPath(directory, main, name, host))
  return like ?? (own === undefined ? undefined : noModule(made, seen, own))
}

/** A note on what the new host's file must be, unless it is that already. */
function mustBeLike(
  { file, whole }: NoModule,
  made: Value,
  seen: Seen,
  main: string,
  name: string,
): string[] {
  const own = asFiles(main, name).main
  if (whole) {
    const isWhole = noModule(made, seen, main)?.whole
    return isWhole ? [] : [`\`${own}\` must make a whole system, as \`${file}\` does`]
  }
  return existsSync(own)
    ? []
    : [`\`${own}\` must be like \`${file}\`: the flake imports it, and not as a module`]
}

/**
 * Parses the edited text and checks it: there must be exactly one new node, every other token must be
 * unchanged, and the hosts must be the previous ones and the new one.
 * @returns the new node, what the source shows of the host, and the host's value
 */
async function verify(
  { file, of, whole }: Flake,
  draft: Draft,
  name: string,
): Promise<{ node: Node; seen: Seen; made: Value }> {
  const { before, inserted, offset } = draft
  const hosts = of.hosts as SetValue
  const wrong = (why: string): Failure =>
    new Failure(`Cannot add \`${name}\` to \`${draft.file}\` at line ${draft.line}: ${why}`, {
      hint: `Write it by hand; this was tried: ${inserted.trim().replace(/\s+/g, ' ')}`,
    })
  const open = await nixReader({ [draft.file]: draft.after }, whole)
  const edited = open(draft.file).root
  const old = (await nixReader({ [draft.file]: before }))(draft.file).root
  if (faults(edited) > faults(old)) throw wrong('it would be a syntax error')
  const isNew = (node: Node): boolean =>
    node.startIndex >= offset && node.endIndex <= offset + inserted.length
  const kept = leaves(edited).filter((leaf) => !isNew(leaf))
  const added = outermost(edited, isNew)
  if (added.length !== 1 || tokens(kept) !== tokens(leaves(old))) {
    throw wrong('it would change what surrounds it')
  }
  const { hosts: after } = outline(file, open)
  const names = after.is === 'set' ? [...after.attrs.keys()] : []
  if (![...hosts.attrs.keys(), name].every((host) => names.includes(host))) {
    throw wrong(`the hosts would be ${names.join(', ') || 'unknown'}`)
  }
  const host = (after as SetValue).attrs.get(name)!
  return { node: added[0]!, seen: seenIn(host.value, added[0]!), made: host.value() }
}

/** A comment's text may end in the first half of a CRLF. */
const tokens = (all: Node[]): string =>
  all.map(({ type, text }) => `${type} ${text.trimEnd()}`).join('\n')

/** The outermost nodes that fit. */
const outermost = (node: Node, fits: (node: Node) => boolean): Node[] =>
  [...nodesOf(node, fits)].filter(fits)
