import { dirname, join, relative, resolve } from 'node:path'
import { Failure, usage } from '../failure.ts'
import { flakeHosts, placeOf, refusal } from './hosts.ts'
import { copyBehind, hostEntry, intoEmpty, model, type HostEntry } from './entry.ts'
import { hostMaker } from './maker.ts'
import { attributeName, firstError, leaves, lineOf, nixReader, nixString } from './syntax.ts'
import { sourceOf, type Node, type NixSource } from './syntax.ts'
import type { SetValue } from './value.ts'

/** What adding a host to a flake comes to. Lines count from 1; `file` is absolute. */
export type Addition =
  | { outcome: 'present'; file: string; line: number }
  /** The flake lists `directory`, so there is nothing to edit. */
  | { outcome: 'discovered'; file: string; line: number; directory: string }
  | Edit

export interface Edit {
  outcome: 'edit'
  file: string
  /** Line of the new entry. */
  line: number
  before: string
  after: string
  /** What was inserted, and where in `before`, in UTF-16 units. */
  inserted: string
  offset: number
  /** The host that was copied; none for the first one. */
  like?: string
  /** Why it is written like that. */
  reason: string
  /** What a person should look at. */
  notes: string[]
  /** Absolute paths that the new entry names and the copied one does not. */
  paths: string[]
}

/**
 * Works out how to add a host to `flake.nix`, and writes nothing: follows what
 * `outputs.nixosConfigurations` evaluates to down to where its names are written, and copies one of
 * the hosts there.
 * @param flake absolute path of the flake's directory
 * @param like host to copy, rather than one of the most common form
 * @throws Failure (usage) with file and line when the flake is of no form that can be edited
 */
export async function addHost(flake: string, name: string, like?: string): Promise<Addition> {
  const file = join(flake, 'flake.nix')
  const hosts = flakeHosts(file, await nixReader())
  if (hosts.is === 'set' && hosts.attrs.has(name)) {
    const literal = hosts.attrs.get(name)!.literals[0]
    return { outcome: 'present', ...(literal ? placeOf(literal) : { file, line: 1 }) }
  }
  if (hosts.is === 'unknown') throw refusal(name, hosts)
  const listing = [...hosts.attrs.values()].find((attr) => attr.listing)?.listing
  if (listing) {
    return { outcome: 'discovered', ...placeOf(listing.node), directory: listing.directory }
  }
  const draft = hosts.attrs.size > 0 ? copied(hosts, name, like) : first(hosts, name)
  if (relative(flake, draft.file).startsWith('..')) {
    throw usage(`Cannot add \`${name}\`: the hosts are in \`${draft.file}\`, outside the flake`)
  }
  const entry = await verify(file, hosts, draft, name)
  const paths = entry
    .descendantsOfType('path_expression')
    .filter(({ text }) => text.includes(name) && !text.includes('${'))
    .map(({ text }) => resolve(dirname(draft.file), text))
  return { ...draft, paths }
}

type Draft = Omit<Edit, 'paths'>

/** A copy of one of the hosts, behind it. */
function copied(hosts: SetValue, name: string, like?: string): Draft {
  const places = byPlace([...hosts.attrs].flatMap(([host, attr]) => hostEntry(host, attr) ?? []))
  const [fullest, second] = places
  if (like === undefined && fullest && second?.length === fullest.length) {
    const [a, b] = [fullest[0]!, second[0]!]
    throw usage(
      `Cannot choose where to add \`${name}\`: hosts are written at line ${lineOf(a.element)} and at line ${lineOf(b.element)}`,
      `Name the host to copy: --like ${a.name} or --like ${b.name}`,
    )
  }
  const system = fullest?.find((entry) =>
    /^(x86_64|aarch64|riscv64|i686|armv[67]l)-/.test(entry.name),
  )
  if (system) {
    const why = `\`${system.name}\` names a system, and no host`
    throw refusal(name, { node: system.element, why })
  }
  const place =
    like === undefined ? fullest : places.find((of) => of.some((entry) => entry.name === like))
  const chosen = place && model(place, like)
  if (chosen) {
    const { notes, ...insertion } = copyBehind(chosen, name)
    const edit = insert(sourceOf(chosen.entry.element), insertion)
    return { ...edit, like: chosen.entry.name, reason: chosen.reason, notes }
  }
  if (like !== undefined) {
    const others = places.flat().map((entry) => entry.name)
    throw usage(
      `Cannot copy \`${like}\`: it is no host that can be copied`,
      others.length > 0 ? `There are ${others.join(', ')}` : undefined,
    )
  }
  const [host, { literals }] = [...hosts.attrs][0]!
  const [node] = literals
  if (node)
    throw refusal(
      name,
      { node, why: `\`${host}\` is made elsewhere or in pieces, so no copy of it is a host` },
      true,
    )
  const why = 'the hosts have computed names'
  throw refusal(name, { node: (hosts.places[0] ?? hosts.gaps[0])!.node, why })
}

/** Entries by the set or list that they are written in, the fullest first; each entry once. */
function byPlace(entries: HostEntry[]): HostEntry[][] {
  const places = new Map<string, Map<number, HostEntry>>()
  for (const entry of entries) {
    const key = `${entry.container.id} ${entry.prefix}`
    const place = places.get(key) ?? new Map<number, HostEntry>()
    if (!place.has(entry.element.id)) place.set(entry.element.id, entry)
    places.set(key, place)
  }
  return [...places.values()]
    .map((place) => [...place.values()])
    .toSorted((a, b) => b.length - a.length)
}

/** The first host of an empty list, or of an empty set where one function makes hosts. */
function first(hosts: SetValue, name: string): Draft {
  const [gap] = hosts.gaps
  const [place, another] = hosts.places
  if (gap) throw refusal(name, gap)
  if (!place || another) throw refusal(name, { node: place!.node, why: 'there is no host to copy' })
  const list = place.node.type === 'list_expression'
  const maker = list ? undefined : hostMaker(place.scope, name)
  if (!list && !maker) {
    const why = 'the set is empty, and no function is there to make a host of its name'
    throw refusal(name, { node: place.node, why }, true)
  }
  const element = list ? nixString(name) : `${attributeName(name)} = ${maker};`
  const reason = list ? 'the first name of the list' : 'by the one function that makes hosts'
  return { ...insert(sourceOf(place.node), intoEmpty(place.node, element)), reason, notes: [] }
}

function insert(
  source: NixSource,
  { offset, text }: { offset: number; text: string },
): Omit<Draft, 'reason' | 'notes'> {
  const before = source.text
  const space = text.slice(0, text.length - text.trimStart().length)
  return {
    outcome: 'edit',
    file: source.path,
    line: (before.slice(0, offset) + space).split('\n').length,
    before,
    after: before.slice(0, offset) + text + before.slice(offset),
    inserted: text,
    offset,
  }
}

/**
 * Parses the edited text: it must have one new node, every other token where it was, and for hosts
 * those that there were and the new one.
 * @returns the new node
 */
async function verify(file: string, hosts: SetValue, draft: Draft, name: string): Promise<Node> {
  const { before, inserted, offset } = draft
  const wrong = (why: string): Failure =>
    new Failure(`Cannot add \`${name}\` to \`${draft.file}\` at line ${draft.line}: ${why}`, {
      hint: `Write it by hand; this was tried: ${inserted.trim().replace(/\s+/g, ' ')}`,
    })
  const open = await nixReader({ [draft.file]: draft.after })
  const edited = open(draft.file).root
  const old = (await nixReader({ [draft.file]: before }))(draft.file).root
  if (firstError(edited)) throw wrong('it would be a syntax error')
  const isNew = (node: Node): boolean =>
    node.startIndex >= offset && node.endIndex <= offset + inserted.length
  const kept = leaves(edited).filter((leaf) => !isNew(leaf))
  const added = outermost(edited, isNew)
  if (added.length !== 1 || tokens(kept) !== tokens(leaves(old))) {
    throw wrong('it would change what surrounds it')
  }
  const after = flakeHosts(file, open)
  const names = after.is === 'set' ? [...after.attrs.keys()] : []
  if (![...hosts.attrs.keys(), name].every((host) => names.includes(host))) {
    throw wrong(`the hosts would be ${names.join(', ') || 'unknown'}`)
  }
  return added[0]!
}

/** A comment's text may end in the first half of a CRLF. */
const tokens = (all: Node[]): string =>
  all.map(({ type, text }) => `${type} ${text.trimEnd()}`).join('\n')

/** The nodes that fit, not looking into those that do. */
const outermost = (node: Node, fits: (node: Node) => boolean): Node[] =>
  fits(node) ? [node] : node.children.flatMap((child) => outermost(child, fits))
