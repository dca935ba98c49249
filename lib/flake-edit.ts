import { dirname, join, relative, resolve } from 'node:path'
import { Failure, usage } from './failure.ts'
import { copyBehind, hostEntry, intoEmpty, model, type HostEntry } from './host-entry.ts'
import {
  attributeName,
  firstError,
  leaves,
  lineOf,
  nixReader,
  nixString,
  parts,
  sourceOf,
} from './nix-syntax.ts'
import type { Node, NixSource, ReadNix } from './nix-syntax.ts'
import { call } from './nix-library.ts'
import { evaluate } from './nix-trace.ts'
import { argument, attribute } from './nix-value.ts'
import type { Place, Scope, SetValue, Unknown, Value } from './nix-value.ts'

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
  const hosts = hostsOf(file, await nixReader())
  if (hosts.is === 'set' && hosts.attrs.has(name)) {
    const literal = hosts.attrs.get(name)!.literals[0]
    return { outcome: 'present', ...(literal ? placeOf(literal) : { file, line: 1 }) }
  }
  const gaps = hosts.is === 'set' ? hosts.gaps : [hosts]
  const listed = gaps.find(({ listing }) => listing !== undefined)
  if (listed) return { outcome: 'discovered', ...placeOf(listed.node), directory: listed.listing! }
  if (hosts.is === 'unknown') throw refusal(name, hosts)
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

/** @throws Failure (usage) at a syntax error */
function hostsOf(file: string, open: ReadNix): SetValue | Unknown {
  const { root } = open(file)
  const broken = firstError(root)
  if (broken) throw usage(`Cannot parse \`${file}\`: syntax error at line ${lineOf(broken)}`)
  const flake = evaluate(root)
  const written = (flake.is === 'set' && flake.attrs.get('outputs')?.literals[0]) || root
  const outputs = attribute(flake, 'outputs', written)
  let made: Value = argument(written)
  const self = { value: () => made, literals: [] }
  const inputs: SetValue = { is: 'set', attrs: new Map([['self', self]]), places: [], gaps: [made] }
  made = outputs.is === 'function' ? call(outputs, () => inputs, written) : outputs
  const hosts = attribute(made, 'nixosConfigurations', written)
  if (hosts.is === 'set' || hosts.is === 'unknown') return hosts
  return { is: 'unknown', node: written, why: '`nixosConfigurations` is no attribute set' }
}

const placeOf = (node: Node): { file: string; line: number } => ({
  file: sourceOf(node).path,
  line: lineOf(node),
})

/** @param beside whether the host can be written by hand at that very place */
function refusal(name: string, { node, why, fault }: Omit<Unknown, 'is'>, beside = false): Failure {
  const { file, line } = placeOf(node)
  if (fault === 'syntax') return usage(`Cannot parse \`${file}\`: syntax error at line ${line}`)
  const entry = `${attributeName(name)} = nixpkgs.lib.nixosSystem { modules = [ ./hosts/${name} ]; };`
  const written = beside
    ? entry
    : fault === 'absent'
      ? `nixosConfigurations.${entry}`
      : `nixosConfigurations = … // { ${entry} };`
  return usage(
    `Cannot add \`${name}\` to \`${file}\` at line ${line}: ${why}`,
    `Write it by hand, such as: ${written}`,
  )
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
  const place =
    like === undefined ? fullest : places.find((of) => of.some((entry) => entry.name === like))
  const chosen = place && model(place, like)
  if (chosen) {
    const { notes, ...insertion } = copyBehind(chosen, name)
    const edit = insert(sourceOf(chosen.entry.element), insertion)
    return { ...edit, like: chosen.entry.name, reason: chosen.reason, notes }
  }
  if (like !== undefined) throw usage(`Cannot copy \`${like}\`: it is no host that can be copied`)
  const [host, { literals }] = [...hosts.attrs][0]!
  const [literal] = literals
  if (literal)
    throw refusal(
      name,
      { node: literal, why: `\`${host}\` is made elsewhere, so a copy is no host` },
      true,
    )
  const node = (hosts.places[0] ?? hosts.gaps[0])!.node
  throw refusal(name, { node, why: 'the hosts have computed names' })
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
  const maker = list ? undefined : hostMaker(place, name)
  if (!list && !maker) {
    const why = 'the set is empty, and no function is there to make a host of its name'
    throw refusal(name, { node: place.node, why }, true)
  }
  const element = list ? nixString(name) : `${attributeName(name)} = ${maker};`
  const reason = list ? 'the first name of the list' : 'by the one function that makes hosts'
  return { ...insert(sourceOf(place.node), intoEmpty(place.node, element)), reason, notes: [] }
}

/** The call of `mkHost` or the like, if one such function is in scope and wants but a host's name. */
function hostMaker(place: Place, name: string): string | undefined {
  const makers = new Map<string, string | undefined>()
  for (let scope: Scope | undefined = place.scope; scope; scope = scope.outer) {
    for (const [variable, value] of scope.names) {
      if (
        makers.has(variable) ||
        !/^(mk|make|build)-?(nixos)?-?(host|system|machine)/i.test(variable)
      )
        continue
      const made = value()
      const wants =
        made.is === 'function' && made.lambda ? nameArgument(made.lambda, name) : undefined
      makers.set(variable, wants && `${variable} ${wants}`)
    }
  }
  const [only, ...others] = makers.values()
  return others.length === 0 ? only : undefined
}

/** What to call a function with that wants a host's name and nothing else. */
function nameArgument(lambda: Node, name: string): string | undefined {
  const isName = /^(host-?name|host|name)$/i
  const formals = lambda.childForFieldName('formals')
  if (!formals) {
    const onlyName = lambda.childForFieldName('body')?.type !== 'function_expression'
    const plain = isName.test(lambda.childForFieldName('universal')?.text ?? '')
    return plain && onlyName ? nixString(name) : undefined
  }
  const [formal, ...others] = parts(formals).filter(
    (one) => one.type === 'formal' && !one.childForFieldName('default'),
  )
  const wanted = formal?.childForFieldName('name')?.text ?? ''
  return others.length === 0 && isName.test(wanted)
    ? `{ ${wanted} = ${nixString(name)}; }`
    : undefined
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
  // a comment's text may end in the first half of a CRLF
  const tokens = (all: Node[]): string =>
    all.map(({ type, text }) => `${type} ${text.trimEnd()}`).join('\n')
  const kept = leaves(edited).filter((leaf) => !isNew(leaf))
  const added = outermost(edited, isNew)
  if (added.length !== 1 || tokens(kept) !== tokens(leaves(old))) {
    throw wrong('it would change what surrounds it')
  }
  const after = hostsOf(file, open)
  const names = after.is === 'set' ? [...after.attrs.keys()] : []
  if (![...hosts.attrs.keys(), name].every((host) => names.includes(host))) {
    throw wrong(`the hosts would be ${names.join(', ') || 'unknown'}`)
  }
  return added[0]!
}

/** The nodes that fit, not looking into those that do. */
const outermost = (node: Node, fits: (node: Node) => boolean): Node[] =>
  fits(node) ? [node] : node.children.flatMap((child) => outermost(child, fits))
