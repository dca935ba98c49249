import type { Node } from './syntax.ts'

/**
 * What Nix expressions evaluate to, as far as their source shows it. Flake inputs, and everything
 * that depends on them, are unknown. A name keeps the `literal` that it was written as (an attribute name
 * or a string) on its way through `mapAttrs`, `genAttrs`, `listToAttrs` and the like.
 */
export type Value = SetValue | ListValue | TextValue | TruthValue | FunctionValue | Unknown
export type Thunk = () => Value

export interface SetValue {
  is: 'set'
  attrs: Map<string, Attr>
  /** Literal sets and lists into which a new attribute can be written. */
  places: Place[]
  /** Parts of the set that are not known. */
  gaps: Unknown[]
}

export interface Attr {
  value: Thunk
  /** More than one when several bindings define it, as `a.x = 1; a.y = 2;` define `a`. */
  literals: Node[]
  listing?: Listing
}

/** Where a directory is listed; a name with a listing stands for each name in that directory. */
export interface Listing {
  node: Node
  directory: string
}

export interface ListValue {
  is: 'list'
  items: Thunk[]
  places: Place[]
  gaps: Unknown[]
}

export interface TextValue {
  is: 'text' | 'path'
  /** A path is absolute. */
  text: string
  literal?: Node
  listing?: Listing
}

export interface TruthValue {
  is: 'truth'
  holds: boolean
}

export interface FunctionValue {
  is: 'function'
  call: Call
  /** The lambda in the source; functions of Nix itself have none. */
  lambda?: Node
}

export type Call = (argument: Thunk) => Value

export interface Unknown {
  is: 'unknown'
  node: Node
  why: string
  /** The last name that led to it, if it comes from outside: `genAttrs` for `lib.genAttrs`. */
  name?: string
  /** `absent`: nothing is written there; `syntax`: what is written cannot be parsed. */
  fault?: 'absent' | 'syntax'
  /** The directory from which an unknown function most likely reads the hosts. */
  directory?: string
  /** Whether the flake itself names that directory, which may not exist yet. */
  told?: boolean
  /** The set that an unknown function was given, and that most likely holds the hosts. */
  listed?: SetValue & { path: string }
  /** The data file from which it was read. */
  file?: string
  /** The arguments of an unknown function, or the operands or branches of an unknown expression. */
  given?: Thunk[]
}

/** A set or a list in the source, the attributes written before each name in it, and its scope. */
export interface Place {
  node: Node
  prefix: string[]
  scope: Scope
  /** An attribute that must be written before a name, such as `flake` in a module of flake-parts. */
  under?: string
}

export interface Scope {
  names: Map<string, Thunk>
  /** The set of a `with`, used for a name that no `names` has. */
  dynamic?: Thunk
  outer?: Scope
}

export const outside = (node: Node, name: string, written = name): Unknown => ({
  is: 'unknown',
  node,
  why: `the hosts depend on \`${written}\``,
  name,
})

export const unknown = (node: Node, why: string): Unknown => ({ is: 'unknown', node, why })

/** The result of an unknown function: it may have any attribute. */
export const opaque = (node: Node, why: string): Unknown => ({ ...unknown(node, why), name: '' })

/** An argument of which nothing is known, such as a flake's inputs. */
export const argument = (node: Node): Unknown => outside(node, 'argument')

/** An expression on one line. A long one is cut, but never in the name of a file. */
export const abridged = (node: Node): string => {
  const flat = node.text.replace(/\s+/g, ' ')
  if (flat.length <= 50) return flat
  const start = flat.lastIndexOf(' ', 48) + 1
  const [word] = /^\S*/.exec(flat.slice(start))!
  const end = /[/]|[.]\w+[;)]*$/.test(word) ? start + word.length : 49
  return end < flat.length ? `${flat.slice(0, end)}…` : flat
}

export const other = (node: Node): Unknown =>
  unknown(node, `the hosts depend on \`${abridged(node)}\``)

/**
 * The value at `value.name`.
 * @param written how the source spells it, where that is not in one node
 */
export function attribute(value: Value, name: string, at: Node, written?: string): Value {
  if (value.is === 'set') {
    const attr = value.attrs.get(name)
    if (attr) return attr.value()
    if (value.gaps[0]) return attribute(value.gaps[0], name, at, written)
    return { ...unknown(at, `there is no \`${name}\``), fault: 'absent' }
  }
  if (value.is !== 'unknown')
    return unknown(at, `\`${name}\` is looked up in something that is no attribute set`)
  const { directory, told, listed, file, given } = value
  return value.name === undefined
    ? value
    : { ...outside(at, name, written ?? abridged(at)), directory, told, listed, file, given }
}

/** The path that a value stands for: a path, a string with an absolute one, or a flake, by its directory. */
export function asPath(value: Value): string | undefined {
  const of = value.is === 'set' ? value.attrs.get('outPath')?.value() : value
  if (of?.is === 'path') return of.text
  return of?.is === 'text' && of.text.startsWith('/') ? of.text : undefined
}

/** A value computed at most once; unknown if it depends on itself. */
export function lazy(node: Node, compute: Thunk): Thunk {
  let value: Value | undefined
  let running = false
  return () => {
    if (value || running) return value ?? unknown(node, 'the definition leads back to itself')
    running = true
    value = compute()
    return value
  }
}

export const asText = (written: string, literal?: Node): TextValue => ({
  is: 'text',
  text: written,
  literal,
})

export const truth = (holds: boolean): TruthValue => ({ is: 'truth', holds })

/** The result of comparing two texts; the names in a listed directory are not known. */
export const compared = (
  a: Value,
  b: Value,
  at: Node,
  by: (a: string, b: string) => boolean,
): Value =>
  a.is === 'text' && b.is === 'text' && !a.listing && !b.listing
    ? truth(by(a.text, b.text))
    : { ...other(at), given: [() => a, () => b] }

export const emptySet = (places: Place[] = []): SetValue => ({
  is: 'set',
  attrs: new Map(),
  places,
  gaps: [],
})

/** The unknown parts of several values that are combined into one. */
export const gapsOf = (all: Value[]): Unknown[] =>
  all.flatMap((one) =>
    one.is === 'unknown' ? [one] : one.is === 'set' || one.is === 'list' ? one.gaps : [],
  )

/** `left // right` */
export function merge(left: Value, right: Value, at: Node): Value {
  const known = [left, right].filter((side) => side.is === 'set')
  const gaps = gapsOf([left, right])
  if (known.length === 0) return gaps[0] ?? other(at)
  return {
    is: 'set',
    attrs: new Map(known.flatMap(({ attrs }) => [...attrs])),
    places: known.flatMap(({ places }) => places),
    gaps,
  }
}

/** Merges modules: sets of the same name become one. */
export function mergeDeep(left: Value, right: Value, at: Node): Value {
  if (left.is !== 'set' || right.is !== 'set')
    return right.is === 'set' ? right : merge(left, right, at)
  const attrs = new Map(left.attrs)
  for (const [name, attr] of right.attrs) {
    const before = left.attrs.get(name)
    const value = lazy(at, () =>
      before ? mergeDeep(before.value(), attr.value(), at) : attr.value(),
    )
    attrs.set(name, { ...attr, value, literals: [...(before?.literals ?? []), ...attr.literals] })
  }
  return {
    is: 'set',
    attrs,
    places: [...left.places, ...right.places],
    gaps: [...left.gaps, ...right.gaps],
  }
}

/** Concatenates lists; of a value that is no list, only its gaps are kept. */
export function concatenate(all: Value[], at: Node): Value {
  const known = all.filter((part) => part.is === 'list')
  const gaps = gapsOf(all)
  if (known.length === 0) return gaps[0] ?? other(at)
  return {
    is: 'list',
    items: known.flatMap(({ items }) => items),
    places: known.flatMap(({ places }) => places),
    gaps,
  }
}

/** Whether all names in a value are those of a listed directory, even if some may be filtered out. */
export function isListed(value: Value): boolean {
  if (value.is === 'text') return value.listing !== undefined
  if (value.is === 'set') {
    const all = [...value.attrs.values()]
    // or it is a `{ name, value }` record with a listed name, as `listToAttrs` takes it
    const name = value.attrs.get('name')?.value()
    return (
      (all.length > 0 && all.every(({ listing }) => listing)) ||
      (name?.is === 'text' && name.listing !== undefined)
    )
  }
  return (
    value.is === 'list' && value.items.length > 0 && value.items.every((item) => isListed(item()))
  )
}

export const hasNames = (value: Value): boolean =>
  (value.is === 'set' && value.attrs.size > 0) || (value.is === 'list' && value.items.length > 0)

/** The result of a condition or filter is unknown, unless its names come from a listing. */
export const ifListed = (value: Value, at: Node): Value =>
  value.is === 'unknown' || isListed(value) ? value : { ...other(at), given: [() => value] }

/** What a flake's `nixosConfigurations` evaluates to, as far as the source shows it, and where it is written. */
export interface Outline {
  hosts: SetValue | Unknown
  /** The attribute name `nixosConfigurations`; missing where the source does not show it. */
  bound?: Node
  /** The set of the flake's outputs. */
  outputs?: Place
  /** The name of the input that is nixpkgs. */
  nixpkgs: string
  /** The body of the `outputs` function, or the whole file if there is none. */
  body: Node
}
