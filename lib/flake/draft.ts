import { join } from 'node:path'
import { usage, type Failure } from '../failure.ts'
import { placeOf } from './by-hand.ts'
import {
  copyBehind,
  hangsOnItsName,
  hostEntry,
  intoEmpty,
  model,
  namedIn,
  otherMeaning,
  platformAround,
  type HostEntry,
} from './entry.ts'
import type { Why } from './hosts.ts'
import { hostMaker } from './maker.ts'
import { mentions, otherPlatform, pathsOf, seenOfAll } from './seen.ts'
import { attributeName, nixString, sourceOf, within, type Node, type NixSource } from './syntax.ts'
import type { Outline, SetValue } from './value.ts'

/** An edit that adds a host, and has not been verified. */
export interface Draft {
  outcome: 'edit'
  file: string
  /** Line of the new entry. */
  line: number
  before: string
  after: string
  /** What was inserted, and where in `before`, in UTF-16 units. */
  inserted: string
  offset: number
  /** The host that was copied; missing for the first host. */
  like?: string
  /** Why the entry has this form. */
  reason: string
  /** What the user should check. */
  notes: string[]
}

/** A flake and what its source shows. */
export interface Flake {
  directory: string
  /** Its `flake.nix`. */
  file: string
  of: Outline
  /** Files that nix can parse although the grammar finds errors in them. */
  whole: Set<string>
}

export type Refuse = (why: Why) => Failure

/** A draft that copies one of the hosts, and inserts the copy after it. */
export function copied(flake: Flake, name: string, refuse: Refuse, like?: string): Draft {
  const [gap] = (flake.of.hosts as SetValue).gaps
  const all = entriesOf(flake)
  const fitting = all.filter(({ platform, name: host }) => !platform || host === like)
  const places = byPlace(fitting.length > 0 ? fitting : all)
    .filter((place) => !place.every(hangsOnItsName))
    // a set with one entry per system is no set of hosts, unless there is no other
    .toSorted((a, b) => Number(isSystem(a[0]!.name)) - Number(isSystem(b[0]!.name)))
  const [fullest] = places
  if (like === undefined) mustBeOne(flake, name, places)
  const system = fullest?.find((entry) => isSystem(entry.name))
  if (system) {
    throw refuse({ node: system.element, why: `\`${system.name}\` names a system, and no host` })
  }
  const place =
    like === undefined ? fullest : places.find((at) => at.some((entry) => entry.name === like))
  const chosen = place && model(place, like)
  // e.g. the only entry is an image, and the hosts come from an option
  if (gap && like === undefined && chosen?.entry.names === 'nothing') throw refuse(gap)
  if (!chosen) {
    throw like === undefined ? noneIsCopied(flake, name, refuse) : isNotCopied(like, places)
  }
  mustBeFree(chosen.entry, name)
  const { notes, ...insertion } = copyBehind(chosen, name)
  const edit = insert(sourceOf(chosen.entry.element), insertion)
  const { platform, name: other } = chosen.entry
  if (platform) {
    notes.push(
      `\`${other}\` is a host for ${platform}, and the lab runs x86_64-linux alone: change it in the new entry`,
    )
  }
  const among = !platform && fitting.length < all.length ? ' for x86_64-linux' : ''
  return { ...edit, like: other, reason: `${chosen.reason}${among}`, notes }
}

/** The hosts that are each written in one place, with what their values show of them. */
function entriesOf({ directory, of }: Flake): HostEntry[] {
  const hosts = of.hosts as SetValue
  const shown = seenOfAll(hosts)
  return [...hosts.attrs].flatMap(([host, attr]) => {
    const entry = hostEntry(host, attr)
    const seen = shown.get(host)
    if (!entry || !seen) return []
    const own = pathsOf(seen, host, directory)
    const isSaid = seen.texts.some((text) => mentions(text, host))
    const names = own.length > 0 ? 'files' : isSaid ? 'word' : 'nothing'
    // where hosts are handed each other's values, every path counts as shared
    const shared = new Set(own.length > 0 ? seen.shared : [])
    const around = platformAround(entry)
    const platform = around === 'x86_64-linux' ? undefined : (around ?? otherPlatform(seen, own))
    return [{ ...entry, names, shared, platform } satisfies HostEntry]
  })
}

/** @throws Failure (usage) when two places hold equally many hosts */
function mustBeOne({ directory }: Flake, name: string, places: HostEntry[][]): void {
  const [fullest, second] = places
  const isTie = second?.length === fullest?.length && !isSystem(second?.[0]?.name ?? '')
  if (!fullest || !second || !isTie) return
  const [a, b] = [fullest[0]!, second[0]!]
  const at = ({ name: host, element }: HostEntry): string => {
    const { file, line } = placeOf(element)
    const inFile = file === join(directory, 'flake.nix') ? '' : ` of \`${file}\``
    return `\`${host}\` at line ${line}${inFile}`
  }
  throw usage(
    `Cannot choose where to add \`${name}\`: it has hosts in two places, ${at(a)} and ${at(b)}`,
    `Name the host to copy: --like ${a.name} or --like ${b.name}`,
  )
}

/** @throws Failure (usage) when the name is written among the hosts already, or would mean something else there */
function mustBeFree(entry: HostEntry, name: string): void {
  const there = namedIn(entry, name)
  if (there) {
    const { file, line } = placeOf(there)
    throw usage(
      `Cannot add \`${name}\`: it is written at line ${line} of \`${file}\`, and the flake makes no host of it`,
      'Something between there and the hosts leaves it out: fix that, or choose another name',
    )
  }
  const meant = otherMeaning(entry, name)
  if (meant) {
    const { file, line } = placeOf(meant)
    throw usage(
      `Cannot add \`${name}\`: the \`rec\` set of the hosts uses that name at line ${line} of \`${file}\`, and would then mean the new host`,
      'Choose another name',
    )
  }
}

/** The failure of a host that was asked for as the model. */
function isNotCopied(like: string, places: HostEntry[][]): Failure {
  const others = places
    .flat()
    .filter((entry) => !hangsOnItsName(entry))
    .map((entry) => entry.name)
  return usage(
    `Cannot copy \`${like}\`: it is not a host that can be copied`,
    others.length > 0 ? `There are ${others.join(', ')}` : undefined,
  )
}

/** The failure of a flake none of whose hosts can be copied. */
function noneIsCopied({ of }: Flake, name: string, refuse: Refuse): Failure {
  const { attrs, places, gaps } = of.hosts as SetValue
  const [host, { literals }] = [...attrs][0]!
  const [literal] = literals
  const [at] = places
  if (literal) {
    // a name outside the set, such as in a `let`: an entry beside that would make no host
    const there = at && sourceOf(literal) === sourceOf(at.node) && within(literal, at.node)
    return refuse({
      node: there ? literal : whereWritten(of, at?.node ?? literal),
      why: `\`${host}\` is made elsewhere or in pieces, so no copy of it is a host`,
    })
  }
  const node = at?.node ?? gaps[0]?.node ?? of.bound
  return node
    ? refuse({ node, why: 'the hosts have computed names' })
    : usage(`Cannot add \`${name}\`: the hosts have computed names`)
}

/** The set into which a host can be written by hand, else the name `nixosConfigurations`. */
function whereWritten({ bound, outputs }: Outline, place: Node): Node {
  if (bound && (sourceOf(bound) !== sourceOf(place) || !outputs || !within(place, outputs.node)))
    return bound
  return place
}

const isSystem = (name: string): boolean => /^(x86_64|aarch64|riscv64|i686|armv[67]l)-/.test(name)

/** Entries grouped by the set or list that holds them, the fullest first; each entry once. */
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
export function first({ file, of }: Flake, name: string, refuse: Refuse): Draft {
  const { gaps, places } = of.hosts as SetValue
  const [gap] = gaps
  const [place, another] = places
  if (gap) throw refuse(gap)
  if (!place || another) {
    const node = place?.node ?? of.bound ?? of.outputs?.node
    const why = 'there is no host to copy'
    throw node ? refuse({ node, why }) : usage(`Cannot add \`${name}\` to \`${file}\`: ${why}`)
  }
  const list = place.node.type === 'list_expression'
  const maker = list ? undefined : hostMaker(place.scope, name)
  if (!list && !maker) {
    const why = 'the set is empty, and no function is there to make a host of its name'
    throw refuse({ node: place.node, why })
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
