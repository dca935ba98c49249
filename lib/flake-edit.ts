import { dirname, join, relative, resolve } from 'node:path'
import { Failure, usage } from './failure.ts'
import { copyAfter, hostEntry, intoEmpty, model, type HostEntry } from './host-entry.ts'
import { attributeName, firstError, lineOf, nixReader, nixString, parts, sourceOf } from './nix-syntax.ts'
import type { Node, NixSource, ReadNix } from './nix-syntax.ts'
import { argument, attribute, call, evaluate } from './nix-trace.ts'
import type { Place, Scope, SetValue, Unknown } from './nix-trace.ts'

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
  if (hosts.is === 'unknown') throw refusal(flake, name, hosts)
  const edit = hosts.attrs.size > 0 ? copied(flake, hosts, name, like) : first(flake, hosts, name)
  if (relative(flake, edit.file).startsWith('..')) {
    throw usage(`Cannot add \`${name}\`: the hosts are in \`${edit.file}\`, outside the flake`)
  }
  const entry = await verify(file, hosts, edit, name)
  const paths = entry
    .descendantsOfType('path_expression')
    .filter(({ text }) => text.includes(name) && !text.includes('${'))
    .map(({ text }) => resolve(dirname(edit.file), text))
  return { ...edit, paths }
}

/** @throws Failure (usage) at a syntax error */
function hostsOf(file: string, open: ReadNix): SetValue | Unknown {
  const { root } = open(file)
  const broken = firstError(root)
  if (broken) throw usage(`Cannot parse \`${file}\`: syntax error at line ${lineOf(broken)}`)
  const flake = evaluate(root)
  const written = (flake.is === 'set' && flake.attrs.get('outputs')?.literals[0]) || root
  const outputs = attribute(flake, 'outputs', written)
  const made = outputs.is === 'function' ? call(outputs, () => argument(written), written) : outputs
  const hosts = attribute(made, 'nixosConfigurations', written)
  if (hosts.is === 'set' || hosts.is === 'unknown') return hosts
  return { is: 'unknown', node: written, why: '`nixosConfigurations` is no attribute set' }
}

const placeOf = (node: Node): { file: string; line: number } => ({
  file: sourceOf(node).path,
  line: lineOf(node),
})

type Draft = Omit<Edit, 'paths'>

/** A copy of one of the hosts, behind it. */
function copied(flake: string, hosts: SetValue, name: string, like?: string): Draft {
  const entries = [...hosts.attrs].flatMap(([host, attr]) => hostEntry(host, attr) ?? [])
  const unique = [...new Map(entries.toReversed().map((entry) => [entry.element.id, entry])).values()]
  const [most, second] = byPlace(unique.toReversed())
  if (!most) {
    const [host, attr] = [...hosts.attrs][0]!
    const node = attr.literals[0]
    if (node) throw refusal(flake, name, { node, why: `\`${host}\` is not written where it can be copied` })
    throw usage(`Cannot add \`${name}\` to \`${flake}\`: its hosts have computed names`)
  }
  if (like === undefined && second?.length === most.length) {
    const [a, b] = [most[0]!, second[0]!]
    throw usage(
      `Cannot choose where to add \`${name}\`: hosts are written at line ${lineOf(a.element)} and at line ${lineOf(b.element)}`,
      `Name the host to copy: --like ${a.name} or --like ${b.name}`,
    )
  }
  const among = like === undefined ? most : (byPlace(unique).find((place) => place.some((entry) => entry.name === like)) ?? [])
  const chosen = model(among, like)
  if (!chosen) {
    if (like !== undefined) throw usage(`Cannot copy \`${like}\`: there is no such host that can be copied`)
    const why = `\`${most[0]!.name}\` takes its definition from a variable of its own name`
    throw refusal(flake, name, { node: most[0]!.element, why })
  }
  const insertion = copyAfter(chosen, name)
  const edit = insert(sourceOf(chosen.entry.element), insertion)
  return { ...edit, like: chosen.entry.name, reason: chosen.reason, notes: insertion.notes }
}

/** Entries by the literal that they are written in, the fullest first. */
function byPlace(entries: HostEntry[]): HostEntry[][] {
  const places = new Map<string, HostEntry[]>()
  for (const entry of entries) {
    const key = `${sourceOf(entry.element).path} ${entry.container.id} ${entry.prefix}`
    places.set(key, [...(places.get(key) ?? []), entry])
  }
  return [...places.values()].sort((a, b) => b.length - a.length)
}

/** The first host of an empty list, or of an empty set where one function makes hosts. */
function first(flake: string, hosts: SetValue, name: string): Draft {
  const [place, ...others] = hosts.places
  if (!place || others.length > 0) {
    const node = hosts.gaps[0]?.node ?? place?.node
    if (node) throw refusal(flake, name, { node, why: 'there is no host to copy' })
    throw usage(`Cannot add \`${name}\` to \`${flake}\`: it has no host to copy`)
  }
  const list = place.node.type === 'list_expression'
  const maker = list ? undefined : hostMaker(place, name)
  if (!list && !maker) {
    throw refusal(flake, name, { node: place.node, why: 'the set is empty and shows no form to copy' })
  }
  const element = list ? nixString(name) : `${attributeName(name)} = ${maker};`
  const reason = list ? 'the first name of the list' : 'the call of the one function that makes hosts'
  return { ...insert(sourceOf(place.node), intoEmpty(place.node, element)), reason, notes: [] }
}

/** The call of `mkHost` or the like, if one such function is in scope and wants but a host's name. */
function hostMaker(place: Place, name: string): string | undefined {
  const makers = new Map<string, string | undefined>()
  for (let scope: Scope | undefined = place.scope; scope; scope = scope.outer) {
    for (const [variable, value] of scope.names) {
      if (makers.has(variable) || !/^(mk|make|build)-?(nixos)?-?(host|system|machine)/i.test(variable)) continue
      const made = value()
      const wants = made.is === 'function' && made.lambda ? nameArgument(made.lambda, name) : undefined
      makers.set(variable, wants && `${variable} ${wants}`)
    }
  }
  const [only, ...others] = makers.values()
  return others.length === 0 ? only : undefined
}

function nameArgument(lambda: Node, name: string): string | undefined {
  const isName = /^(host-?name|host|name)$/i
  const formals = lambda.childForFieldName('formals')
  if (!formals) {
    const body = lambda.childForFieldName('body')
    const plain = isName.test(lambda.childForFieldName('universal')?.text ?? '')
    return plain && body?.type !== 'function_expression' ? nixString(name) : undefined
  }
  const required = parts(formals).filter((formal) => formal.type === 'formal' && !formal.childForFieldName('default'))
  const formal = required[0]?.childForFieldName('name')?.text ?? ''
  return required.length === 1 && isName.test(formal) ? `{ ${formal} = ${nixString(name)}; }` : undefined
}

function insert(source: NixSource, { offset, text }: { offset: number; text: string }): Omit<Draft, 'reason' | 'notes'> {
  const before = source.text
  const blank = text.length - text.trimStart().length
  return {
    outcome: 'edit',
    file: source.path,
    line: `${before.slice(0, offset)}${text.slice(0, blank)}`.split('\n').length,
    before,
    after: before.slice(0, offset) + text + before.slice(offset),
    inserted: text,
    offset,
  }
}

/**
 * Parses the edited text: there must be one new node and nothing else, and the hosts must be those
 * that there were and the new one.
 * @returns the new node
 */
async function verify(file: string, hosts: SetValue, edit: Draft, name: string): Promise<Node> {
  const wrong = (why: string): Failure =>
    new Failure(`Cannot add \`${name}\` to \`${edit.file}\` at line ${edit.line}: ${why}`, {
      hint: `This is what was tried: ${edit.inserted.trim()}`,
    })
  const open = await nixReader({ [edit.file]: edit.after })
  const [old, edited] = [(await nixReader())(edit.file).root, open(edit.file).root]
  if (firstError(edited)) throw wrong('it would be a syntax error')
  const length = edit.inserted.length
  const kept = (node: Node): boolean =>
    node.startIndex < edit.offset || node.endIndex > edit.offset + length
  const added = nodes(edited, (node) => !kept(node)).filter((node) => !kept(node))
  const unshift = (index: number): number => (index > edit.offset ? index - length : index)
  const shape = (node: Node): string => `${node.type} ${unshift(node.startIndex)} ${unshift(node.endIndex)}`
  const shapes = [
    nodes(old, () => false).map(({ type, startIndex, endIndex }) => `${type} ${startIndex} ${endIndex}`),
    nodes(edited, (node) => !kept(node)).filter(kept).map(shape),
  ]
  if (added.length !== 1 || shapes[0]!.join() !== shapes[1]!.join()) {
    throw wrong('it would change what surrounds it')
  }
  const names = hostsOf(file, open)
  const expected = [...hosts.attrs.keys(), name]
  const after = names.is === 'set' ? names.attrs : new Map()
  if (!expected.every((host) => after.has(host))) {
    throw wrong(`the flake's hosts would be ${[...after.keys()].join(', ') || 'unknown'}`)
  }
  return added[0]!
}

/** All nodes under one, itself included, not looking into those that `stop` names. */
const nodes = (node: Node, stop: (node: Node) => boolean): Node[] =>
  stop(node) ? [node] : [node, ...node.children.flatMap((child) => nodes(child, stop))]

function refusal(flake: string, name: string, { node, why }: Pick<Unknown, 'node' | 'why'>): Failure {
  const { file, line } = placeOf(node)
  return usage(
    `Cannot add \`${name}\` to \`${relative(flake, file)}\` at line ${line}: ${why}`,
    `Write it by hand there, or among the outputs: nixosConfigurations.${attributeName(name)} = …;`,
  )
}
