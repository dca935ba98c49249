import type { Node } from './syntax.ts'

/**
 * What Nix expressions evaluate to, as far as their source shows it. Flake inputs, and whatever
 * hangs on them, are unknown. A name keeps the `literal` that it was written as (an attribute name
 * or a string) on its way through `mapAttrs`, `genAttrs`, `listToAttrs` and the like.
 */
export type Value = SetValue | ListValue | TextValue | TruthValue | FunctionValue | Unknown
export type Thunk = () => Value

export interface SetValue {
  is: 'set'
  attrs: Map<string, Attr>
  /** Literal sets and lists that a new attribute can be written into. */
  places: Place[]
  /** Parts of the set that are not known. */
  gaps: Unknown[]
}

export interface Attr {
  value: Thunk
  /** More than one when several bindings define it, as `a.x = 1; a.y = 2;` do `a`. */
  literals: Node[]
  listing?: Listing
}

/** Where a directory is listed; a name with this stands for each of the names in it. */
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
  /** The last name that led to it, for what comes from outside: `genAttrs` for `lib.genAttrs`. */
  name?: string
  /** When nothing is written there, or what is written cannot be parsed. */
  fault?: 'absent' | 'syntax'
  /** What a function that is not known here most likely reads the hosts from. */
  directory?: string
  /** Whether the flake itself names that directory, which need not be there yet. */
  told?: boolean
  /** The set of hosts that a function which is not known here was most likely given. */
  listed?: SetValue & { path: string }
  /** A file of data that it was read from. */
  file?: string
  /** What a function that is not known here was called with, or what it may have been instead. */
  given?: Thunk[]
}

/** A set or a list in the source, the attributes written before each name in it, and its scope. */
export interface Place {
  node: Node
  prefix: string[]
  scope: Scope
  /** Attributes that are to be written before a name, as `flake` in a module of flake-parts. */
  under?: string
}

export interface Scope {
  names: Map<string, Thunk>
  /** The set of a `with`, which is asked when no `names` has it. */
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

/** What an unknown function makes: any attribute may be in it. */
export const opaque = (node: Node, why: string): Unknown => ({ ...unknown(node, why), name: '' })

/** An argument that nothing is known of, such as the inputs of a flake. */
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
 * What is at `value.name`.
 * @param written how the source says it, where that is not in one place
 */
export function attribute(value: Value, name: string, at: Node, written?: string): Value {
  if (value.is === 'set') {
    const attr = value.attrs.get(name)
    if (attr) return attr.value()
    if (value.gaps[0]) return attribute(value.gaps[0], name, at, written)
    return { ...unknown(at, `there is no \`${name}\``), fault: 'absent' }
  }
  if (value.is !== 'unknown') return unknown(at, `\`${name}\` is asked of what is no attribute set`)
  const { directory, told, listed, file, given } = value
  return value.name === undefined
    ? value
    : { ...outside(at, name, written ?? abridged(at)), directory, told, listed, file, given }
}

/** The text of a string, a path, or of a flake, which stands for its directory. */
export function asPath(value: Value): string | undefined {
  const of = value.is === 'set' ? value.attrs.get('outPath')?.value() : value
  if (of?.is === 'path') return of.text
  return of?.is === 'text' && of.text.startsWith('/') ? of.text : undefined
}

/** A value computed at most once; one that needs itself is unknown. */
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

/** What comes of comparing two texts; the names in a listed directory are not known. */
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

/** What a set or a list made of several parts does not show. */
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

/** What modules come to together: sets of the same name become one. */
export function mergeDeep(left: Value, right: Value, at: Node): Value {
  if (left.is !== 'set' || right.is !== 'set')
    return right.is === 'set' ? right : merge(left, right, at)
  const attrs = new Map(left.attrs)
  for (const [name, attr] of right.attrs) {
    const before = left.attrs.get(name)
    const value = lazy(at, () =>
      before ? mergeDeep(before.value(), attr.value(), at) : attr.value(),
    )
    attrs.set(name, { ...attr, value })
  }
  return {
    is: 'set',
    attrs,
    places: [...left.places, ...right.places],
    gaps: [...left.gaps, ...right.gaps],
  }
}

/** One list of several; of what is no list, its gaps stay. */
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

/** Whether all names in a value are those of a listed directory, whatever becomes of some of them. */
export function isListed(value: Value): boolean {
  if (value.is === 'text') return value.listing !== undefined
  if (value.is === 'set') {
    const all = [...value.attrs.values()]
    // or it is a record of one of them, as `listToAttrs` takes it
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

/** What a condition or a filter lets through is not known, but for names that nobody wrote. */
export const ifListed = (value: Value, at: Node): Value =>
  value.is === 'unknown' || isListed(value) ? value : { ...other(at), given: [() => value] }

/** What a flake's `nixosConfigurations` evaluates to, as far as its source shows it, and where that is written. */
export interface Outline {
  hosts: SetValue | Unknown
  /** The attribute name `nixosConfigurations`; none where the source does not show it. */
  bound?: Node
  /** The set that the outputs are. */
  outputs?: Place
  /** The input that is nixpkgs, by its name. */
  nixpkgs: string
  /** What the function gives that the outputs are, or the whole file without one. */
  body: Node
}
