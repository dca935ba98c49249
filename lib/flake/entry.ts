import { isIP } from 'node:net'
import { dirname, resolve } from 'node:path'
import {
  attributeName,
  endOf,
  leaves,
  nodesOf,
  parts,
  sourceOf,
  staticText,
  type Node,
} from './syntax.ts'
import { isPlatform } from './seen.ts'
import type { Attr } from './value.ts'

/** A host as the source writes it: a binding of a set, or an element of a list. */
export interface HostEntry {
  name: string
  /** The attribute name or the string that names it. */
  literal: Node
  element: Node
  container: Node
  /** The attributes before the name: `nixosConfigurations` of `nixosConfigurations.a = …`. */
  prefix: string
  /** The host's platform, if it is not the lab's. */
  platform?: string
  /** Where the host's value shows its name: in paths of its own files, as a word in a text, or nowhere. */
  names: 'files' | 'word' | 'nothing'
  /** Absolute paths that most other hosts read too: a name in such a path is not the host's. */
  shared: ReadonlySet<string>
}

/** For an entry of which only its place is known. */
const unseen = { names: 'nothing', shared: new Set<string>() } as const

/** The entry that contains a host's name; undefined where a copy of it alone would not make a host. */
export function hostEntry(name: string, { literals }: Attr): HostEntry | undefined {
  const [literal] = literals
  if (!literal || literals.length > 1 || staticText(literal) !== name) return undefined
  const path = literal.parent
  if (path?.type === 'attrpath') {
    const element = path.parent!
    const names = parts(path)
    const prefix = names.slice(
      0,
      names.findIndex(({ id }) => id === literal.id),
    )
    return {
      name,
      literal,
      element,
      container: element.parent!,
      prefix: prefix.map(({ text }) => text).join('.'),
      ...unseen,
    }
  }
  let element = literal
  while (element.parent && element.parent.type !== 'list_expression') {
    element = element.parent
    if (['function_expression', 'inherited_attrs', 'interpolation'].includes(element.type))
      return undefined
  }
  return element.parent
    ? { name, literal, element, container: element.parent, prefix: '', ...unseen }
    : undefined
}

/** The platform that names a set around the host, as in `riscv64-linux.web = …`. */
export function platformAround({ literal }: HostEntry): string | undefined {
  for (let node: Node | null = literal; node; node = node.parent) {
    if (node.type !== 'binding') continue
    const names = parts(node.childForFieldName('attrpath')!)
    const before = names.filter(({ id }) => id !== literal.id).map(staticText)
    const platform = before.find((name) => name !== undefined && isPlatform(name))
    if (platform !== undefined) return platform
  }
  return undefined
}

/** Where the same set or list already has the name; a filter may have left it out of the hosts. */
export function namedIn({ literal, container }: HostEntry, name: string): Node | undefined {
  const way = wayTo(literal, container)
  return [...nodesOf(container)].find(
    (node) =>
      /^(identifier|string_expression)$/.test(node.type) &&
      staticText(node) === name &&
      wayTo(node, container) === way,
  )
}

/** Where a `rec` set refers to a variable of that name, which would then mean the new host. */
export const otherMeaning = ({ container, prefix }: HostEntry, name: string): Node | undefined =>
  container.parent?.type === 'rec_attrset_expression' && prefix === ''
    ? [...nodesOf(container)].find(
        ({ type, text }) => type === 'variable_expression' && text === name,
      )
    : undefined

/** The syntax between a name and the set or list that holds it, for comparison. */
function wayTo(literal: Node, container: Node): string {
  const way: string[] = []
  for (let node = literal; node.parent && node.id !== container.id; node = node.parent) {
    const { parent } = node
    const before = parts(parent).filter(({ endIndex }) => endIndex <= node.startIndex)
    if (parent.type === 'attrpath') way.push(...before.map(({ text }) => text))
    const of = parent.type === 'binding' ? parent.childForFieldName('attrpath')! : node
    way.push(of.id === node.id ? parent.type : of.text)
  }
  return way.join(' ')
}

/** An entry to copy, and why this one was chosen. */
export interface Model {
  entry: HostEntry
  /** Whether `name` is replaced inside `name-disk` and as a bare attribute too. */
  loose: boolean
  reason: string
}

/**
 * Chooses the entry to copy among hosts written in one place. Entries whose name leads to something come first, as a
 * copy of another one would be the same host twice; then those of the most common form, those with files of their
 * own, the simplest, and the last. Two entries have the same form when they differ only in their names. This also
 * shows what a name means: `guppy-disk` follows the host's name when the entries of other hosts have their own name
 * there.
 */
export function model(entries: HostEntry[], like?: string): Model | undefined {
  const usable = entries.filter((entry) => !hangsOnItsName(entry))
  const named = usable.filter(({ names }) => names !== 'nothing')
  const candidates = like === undefined && named.length > 0 ? named : usable
  const strict = byForm(candidates, false)
  const loosely = byForm(candidates, true)
  const loose = loosely[0] !== undefined && loosely[0].length > strict[0]!.length
  const forms = loose ? loosely : strict
  const form =
    like === undefined ? forms[0] : forms.find((of) => of.some(({ name }) => name === like))
  const entry = like === undefined ? form?.at(-1) : form?.find(({ name }) => name === like)
  if (!form || !entry) return undefined
  const apart = usable.some(({ names }) => names !== entry.names)
  const reason =
    like !== undefined
      ? 'as asked'
      : entries.length === 1
        ? 'the only host there'
        : form.length > 1
          ? `the form of ${form.length} of the ${entries.length} hosts there`
          : apart && entry.names === 'files'
            ? `the simplest with files of its own of the ${entries.length} hosts there`
            : `the simplest of the ${entries.length} hosts there`
  return { entry, loose, reason }
}

/** `a = mkHost a;` uses a variable with the host's name, which would not exist for a copy. */
export const hangsOnItsName = ({ name, element }: HostEntry): boolean =>
  leaves(element).some(
    ({ type, text, parent }) =>
      type === 'identifier' &&
      text === name &&
      (parent?.type === 'variable_expression' || parent?.type === 'inherited_attrs'),
  )

/**
 * Entries grouped by form, the largest group first. Ties go to the group with own files, then with fewer tokens, then
 * with the name in fewer places, then to the later one.
 */
function byForm(entries: HostEntry[], loose: boolean): HostEntry[][] {
  const forms = new Map<string, HostEntry[]>()
  for (const entry of entries) {
    const tokens = leaves(entry.element).filter(({ type }) => type !== 'comment')
    const form = tokens.map((token) => renamed(token, entry, '\0', loose)).join('\u0001')
    forms.set(form, [...(forms.get(form) ?? []), entry])
  }
  return [...forms]
    .toReversed()
    .toSorted(
      ([a, of], [b, to]) =>
        to.length - of.length ||
        Number(to[0]!.names === 'files') - Number(of[0]!.names === 'files') ||
        size(a) - size(b) ||
        names(a) - names(b),
    )
    .map(([, of]) => of)
}

const size = (form: string): number => form.split('\u0001').length
const names = (form: string): number => form.split('\0').length

/** A token of an entry with the host's name replaced, where it means the host. */
function renamed(
  token: Node,
  { name, literal, shared }: HostEntry,
  to: string,
  loose: boolean,
): string {
  const { text, type, parent } = token
  if (type === 'identifier') {
    if (token.id === literal.id) return attributeName(to)
    const attr = parent?.type === 'attrpath' || parent?.type === 'inherited_attrs'
    return loose && attr && text === name ? attributeName(to) : text
  }
  if (!['string_fragment', 'path_fragment', 'uri_expression'].includes(type)) return text
  if (type === 'path_fragment' && shared.has(resolve(dirname(sourceOf(token).path), parent!.text)))
    return text
  return namesPerson(token) ? text : text.replace(word(name, loose), () => to)
}

/**
 * A pattern for a name as a whole word; a hyphen ends a word only if `loose`. A name right below `/home/` is a
 * person's, and `nixos`, the name of many a first host, is mostly the name of the distribution.
 */
export const word = (name: string, loose: boolean): RegExp => {
  const letters = loose ? 'A-Za-z0-9' : 'A-Za-z0-9_-'
  const own =
    name === 'nixos' ? '(?<!/etc/)(?!nixos/(?:modules|lib|nixpkgs|hosts|machines))' : '(?<!^/home/)'
  return new RegExp(
    `(?<![${letters}])${own}${name.replace(/[^\w-]/g, '\\$&')}(?![${letters}])`,
    'g',
  )
}

/** In `user = …` the name is a person's, even if the host has the same name. */
const namesPerson = (token: Node): boolean => /^(primary)?-?user-?(name)?$/i.test(boundTo(token))

/** The last name of the attribute whose value contains the token, or nothing. */
function boundTo(token: Node): string {
  for (let node: Node | null = token; node; node = node.parent) {
    if (node.type !== 'binding') continue
    return staticText(parts(node.childForFieldName('attrpath')!).at(-1)!) ?? ''
  }
  return ''
}

/** Whether a token appears to be specific to one host. */
const isOfHost = (token: Node, host: string): boolean =>
  isAddress(token) ||
  isNumberOf(token) ||
  isVariableOf(token, host) ||
  (isNamedIn(token.text, host) && !namesPerson(token))

/** In any case, as people write it, and without the domain that a host's name may have. */
const isNamedIn = (text: string, host: string): boolean =>
  word(host.toLowerCase().split('.')[0]!, true).test(text.toLowerCase())

/** `webConfig` belongs to `web`, unless it is a function that is called. */
function isVariableOf({ type, text, parent }: Node, host: string): boolean {
  const words = text.split(/(?=[A-Z])/).map((one) => one.toLowerCase())
  const isCalled = parent?.parent?.childForFieldName('function')?.id === parent?.id
  return (
    type === 'identifier' &&
    parent?.type === 'variable_expression' &&
    !isCalled &&
    words.includes(host.toLowerCase())
  )
}

/** A MAC or IP address: two hosts with the same one cannot reach each other. */
const isAddress = ({ type, text }: Node): boolean =>
  type === 'string_fragment' &&
  (/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text) ||
    (isIP(text.split('/')[0]!) !== 0 && !/^(127\.|0\.0\.0\.0|::1?(\/|$))/.test(text)))

/** A machine id, or a port above those of well-known services; a firewall's ports may be open on all hosts. */
function isNumberOf(token: Node): boolean {
  const name = boundTo(token)
  if (token.type === 'string_fragment') return /^(host|machine)-?id$/i.test(name)
  const port = token.type === 'integer_expression' && Number(token.text) > 1023
  return port && /ports?$/i.test(name) && !name.startsWith('allowed')
}

/** An insertion into a text, which replaces nothing. */
export interface Insertion {
  /** In UTF-16 units. */
  offset: number
  text: string
  /** What in the new entry still belongs to the copied host, for the user to check. */
  notes: string[]
}

/** Inserts another host after the entry, in the same form and layout. */
export function copyBehind({ entry, loose }: Model, name: string): Insertion {
  const { text: source } = sourceOf(entry.element)
  const { element } = entry
  const tokens = leaves(element)
  const notes: string[] = []
  let text = ''
  let end = element.startIndex
  for (const token of tokens) {
    const space = source.slice(end, token.startIndex)
    end = endOf(token)
    // a comment with the copied host's name is about that host
    if (token.type === 'comment' && word(entry.name, true).test(token.text)) continue
    const written =
      token.type === 'comment'
        ? source.slice(token.startIndex, end)
        : renamed(token, entry, name, loose)
    text += space + written
    if (token.type !== 'comment' && written === token.text && isOfHost(token, entry.name)) {
      notes.push(`The new entry still says \`${written}\`, as that of \`${entry.name}\` does`)
    }
  }
  return { ...besides(entry, text), notes: [...new Set(notes)] }
}

/** Where to insert a sibling after the entry, and its text with the leading white space. */
function besides(
  { element, container }: HostEntry,
  text: string,
): { offset: number; text: string } {
  const { text: source } = sourceOf(element)
  const siblings = parts(container)
  const index = siblings.findIndex(({ id }) => id === element.id)
  const [previous, next] = [siblings[index - 1], siblings[index + 1]]
  const before = source.slice(
    source.lastIndexOf('\n', element.startIndex - 1) + 1,
    element.startIndex,
  )
  const row = element.endPosition.row
  if (before.trim() !== '' || next?.startPosition.row === row) {
    return { offset: element.endIndex, text: ` ${text}` }
  }
  // a comment at the end of the entry's line stays on that line
  const comments = sourceOf(element).root.descendantsOfType('comment')
  const remarks = comments.filter(
    (one) => one.startIndex >= element.endIndex && one.startPosition.row === row,
  )
  const newline = newlineOf(source)
  const apart = [
    previous && source.slice(previous.endIndex, element.startIndex),
    next && source.slice(element.endIndex, next.startIndex),
  ].some((gap) => gap && /\n[ \t]*\r?\n/.test(gap))
  const blank = apart && element.startPosition.row !== row ? newline : ''
  return {
    offset: endOf(remarks.at(-1) ?? element),
    text: `${blank}${newline}${before}${text}`,
  }
}

/** Inserts the first element of an empty set or list. */
export function intoEmpty(container: Node, element: string): { offset: number; text: string } {
  const { text: source } = sourceOf(container)
  const open = container.children.find(({ type }) => type === '{' || type === '[')!
  const close = container.lastChild!
  const last = close.previousSibling!
  if (open.endPosition.row === close.startPosition.row) {
    const space = last.id === open.id && open.endIndex === close.startIndex ? ' ' : ''
    return { offset: last.endIndex, text: ` ${element}${space}` }
  }
  const start = source.lastIndexOf('\n', close.startIndex - 1) + 1
  const indent = /^[ \t]*/.exec(source.slice(start))![0]
  const deeper = indent.includes('\t') ? '\t' : '  '
  return { offset: endOf(last), text: `${newlineOf(source)}${indent}${deeper}${element}` }
}

const newlineOf = (source: string): string => /\r?\n/.exec(source)?.[0] ?? '\n'
