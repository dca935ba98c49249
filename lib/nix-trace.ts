import { existsSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { firstError, parts, pieceText, sourceOf, staticText, type Node } from './nix-syntax.ts'

/**
 * What an expression evaluates to, as far as the source shows it, and where in the source its names
 * come from. This is a small lazy evaluator of Nix for which flake inputs, and whatever hangs on
 * them, are unknown. A name keeps the `literal` that it was written as (an attribute name or a
 * string) on its way through `mapAttrs`, `genAttrs`, `listToAttrs` and the like.
 */
export type Value = SetValue | ListValue | TextValue | FunctionValue | Unknown
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
}

export interface FunctionValue {
  is: 'function'
  call: Call
  /** The lambda in the source; functions of Nix itself have none. */
  lambda?: Node
}

type Call = (argument: Thunk) => Value

export interface Unknown {
  is: 'unknown'
  node: Node
  why: string
  /** The last name that led to it, for what comes from outside: `genAttrs` for `lib.genAttrs`. */
  name?: string
  /** The directory, when it is what became of a directory's listing. */
  listing?: string
}

/** A set or a list in the source, the attributes written before each name in it, and its scope. */
export interface Place {
  node: Node
  prefix: string[]
  scope: Scope
}

export interface Scope {
  names: Map<string, Thunk>
  /** The set of a `with`, which is asked when no `names` has it. */
  dynamic?: Thunk
  outer?: Scope
}

const outside = (node: Node, name: string, written = name): Unknown => ({
  is: 'unknown',
  node,
  why: `they hang on \`${written}\``,
  name,
})

const unknown = (node: Node, why: string): Unknown => ({ is: 'unknown', node, why })

/** An argument that nothing is known of, such as the inputs of a flake. */
export const argument = (node: Node): Unknown => outside(node, 'argument')

const abridged = (node: Node): string => {
  const text = node.text.replace(/\s+/g, ' ')
  return text.length > 50 ? `${text.slice(0, 49)}…` : text
}

/** What is at `value.name`. */
export function attribute(value: Value, name: string, at: Node): Value {
  if (value.is === 'set') {
    return value.attrs.get(name)?.value() ?? value.gaps[0] ?? unknown(at, `there is no \`${name}\``)
  }
  if (value.is !== 'unknown') return unknown(at, `\`${name}\` is asked of what is no attribute set`)
  return value.name === undefined ? value : outside(at, name, abridged(at))
}

/** What a function gives for an argument. */
export function call(value: Value, given: Thunk, at: Node): Value {
  if (value.is === 'function') return value.call(given)
  if (value.is !== 'unknown') return unknown(at, `\`${abridged(at)}\` calls what is no function`)
  const known = value.name === undefined ? undefined : library[value.name]
  if (known) return curry(known, at)(given)
  // whatever becomes of a directory's listing, it still follows the directory
  const from = [value, given()].find((one) => one.is === 'unknown' && one.listing !== undefined)
  return from ?? unknown(at, `they are computed by \`${abridged(at)}\``)
}

/** A value computed at most once; one that needs itself is unknown. */
function lazy(node: Node, compute: Thunk): Thunk {
  let value: Value | undefined
  let running = false
  return () => {
    if (value || running) return value ?? unknown(node, 'the definition leads back to itself')
    running = true
    value = compute()
    return value
  }
}

/** A recursive function over what is unknown has no end of its own. */
const deepest = 500
let depth = 0

/** Evaluates an expression; a whole file has an empty scope. */
export function evaluate(node: Node, scope: Scope = { names: new Map() }): Value {
  if (depth >= deepest) return unknown(node, 'the definition nests too deep')
  depth++
  try {
    return (expressions[node.type] ?? other)(node, scope)
  } finally {
    depth--
  }
}

const later = (node: Node, scope: Scope): Thunk => lazy(node, () => evaluate(node, scope))

const other = (node: Node): Value => unknown(node, `they hang on \`${abridged(node)}\``)

const field = (node: Node, name: string): Node => {
  const child = node.childForFieldName(name)
  if (!child) throw new Error(`A ${node.type} has no ${name}`)
  return child
}

const expressions: Record<string, (node: Node, scope: Scope) => Value> = {
  source_code: (node, scope) => {
    const expression = node.childForFieldName('expression')
    return expression ? evaluate(expression, scope) : unknown(node, 'the file is empty')
  },
  parenthesized_expression: (node, scope) => evaluate(field(node, 'expression'), scope),
  assert_expression: (node, scope) => evaluate(field(node, 'body'), scope),
  with_expression: (node, outer) => {
    const dynamic = later(field(node, 'environment'), outer)
    return evaluate(field(node, 'body'), { names: new Map(), dynamic, outer })
  },
  let_expression: (node, scope) => evaluate(field(node, 'body'), recursive(node, scope).inner),
  attrset_expression: (node, scope) => bindings(node, scope, scope),
  rec_attrset_expression: (node, scope) => recursive(node, scope).set,
  list_expression: (node, scope) => ({
    is: 'list',
    items: parts(node).map((element) => later(element, scope)),
    places: [{ node, prefix: [], scope }],
    gaps: [],
  }),
  variable_expression: (node, scope) => lookup(scope, node.text, node),
  select_expression: select,
  apply_expression: (node, scope) =>
    call(evaluate(field(node, 'function'), scope), later(field(node, 'argument'), scope), node),
  function_expression: (lambda, scope) => ({
    is: 'function',
    lambda,
    call: (given) => evaluate(field(lambda, 'body'), bound(lambda, given, scope)),
  }),
  binary_expression: binary,
  string_expression: text,
  path_expression: text,
}

/** `let` and `rec { }`: the values see the names. */
function recursive(node: Node, outer: Scope): { set: SetValue; inner: Scope } {
  const inner: Scope = { names: new Map(), outer }
  const set = bindings(node, inner, outer)
  for (const [name, { value }] of set.attrs) inner.names.set(name, value)
  return { set, inner }
}

interface Binding {
  path: Node[]
  value: Node
}

/** @param outer where `inherit x;` looks, which is never among the set's own names */
function bindings(node: Node, inner: Scope, outer: Scope): SetValue {
  const all = node.namedChildren.find(({ type }) => type === 'binding_set')?.namedChildren ?? []
  const plain = all
    .filter(({ type }) => type === 'binding')
    .map((one) => ({ path: parts(field(one, 'attrpath')), value: field(one, 'expression') }))
  const result = byName(plain, { node, prefix: [], scope: inner })
  for (const clause of all.filter(({ type }) => type.startsWith('inherit'))) {
    const from = clause.childForFieldName('expression')
    const source = from && later(from, inner)
    for (const literal of parts(field(clause, 'attrs'))) {
      const name = staticText(literal) ?? ''
      const value = lazy(literal, () =>
        source ? attribute(source(), name, literal) : lookup(outer, name, literal),
      )
      result.attrs.set(name, { value, literals: [literal] })
    }
  }
  return result
}

function byName(all: Binding[], place: Place): SetValue {
  const result = emptySet([place])
  const names = new Map<string, { literal: Node; binding: Binding }[]>()
  for (const binding of all) {
    const key = attributeText(binding.path[0]!, place.scope)
    if (key.is === 'unknown') {
      result.gaps.push(key)
      continue
    }
    const same = names.get(key.text) ?? []
    names.set(key.text, [...same, { literal: key.literal ?? binding.path[0]!, binding }])
  }
  for (const [name, found] of names) {
    const value = lazy(found[0]!.literal, () => {
      const direct = found.filter(({ binding }) => binding.path.length === 1)
      const nested = found.filter(({ binding }) => binding.path.length > 1)
      const values = direct.map(({ binding }) => evaluate(binding.value, place.scope))
      if (nested.length > 0) {
        const deeper = nested.map(({ binding: { path, value } }) => ({ path: path.slice(1), value }))
        values.push(byName(deeper, { ...place, prefix: [...place.prefix, name] }))
      }
      return values.reduce((left, right) => merge(left, right, found[0]!.literal))
    })
    result.attrs.set(name, { value, literals: found.map(({ literal }) => literal) })
  }
  return result
}

/** An attribute's name; that of `${name} = …` is what `name` is. */
function attributeText(node: Node, scope: Scope): TextValue | Unknown {
  if (node.type === 'identifier') return { is: 'text', text: node.text, literal: node }
  const value =
    node.type === 'interpolation' ? evaluate(field(node, 'expression'), scope) : text(node, scope)
  if (value.is === 'text' || value.is === 'unknown') return value
  return unknown(node, 'an attribute has a computed name')
}

/** A string or a path: known when all that is interpolated in it is. */
function text(node: Node, scope: Scope): TextValue | Unknown {
  const values = node.namedChildren.map((piece): Value => {
    const written = pieceText(piece)
    return written === undefined ? evaluate(field(piece, 'expression'), scope) : asText(written)
  })
  const gap = values.find((value) => value.is === 'unknown')
  if (gap) return gap
  const joined = values.map((value) => (value.is === 'text' || value.is === 'path' ? value.text : '')).join('')
  if (node.type === 'path_expression') {
    return { is: 'path', text: resolve(dirname(sourceOf(node).path), joined) }
  }
  if (staticText(node) !== undefined) return asText(joined, node)
  // `"${name}"` is the name as it was written; `"${name}-vm"` nobody wrote
  const [only, ...rest] = values
  return only?.is === 'text' && rest.length === 0 ? only : asText(joined)
}

const asText = (written: string, literal?: Node): TextValue => ({ is: 'text', text: written, literal })

/** The scope of a lambda's body. */
function bound(lambda: Node, given: Thunk, outer: Scope): Scope {
  const scope: Scope = { names: new Map(), outer }
  const whole = lambda.childForFieldName('universal')
  if (whole) scope.names.set(whole.text, given)
  const formals = lambda.childForFieldName('formals')?.namedChildren ?? []
  for (const formal of formals.filter(({ type }) => type === 'formal')) {
    const name = field(formal, 'name').text
    const fallback = formal.childForFieldName('default')
    const value = lazy(formal, () => {
      const set = given()
      const absent = set.is === 'set' && !set.attrs.has(name) && set.gaps.length === 0
      return fallback && absent ? evaluate(fallback, scope) : attribute(set, name, formal)
    })
    scope.names.set(name, value)
  }
  return scope
}

function select(node: Node, scope: Scope): Value {
  const fallback = node.childForFieldName('default')
  let value = evaluate(field(node, 'expression'), scope)
  for (const attr of parts(field(node, 'attrpath'))) {
    const name = attributeText(attr, scope)
    if (name.is === 'unknown') return name
    if (fallback && value.is === 'set' && !value.attrs.has(name.text)) return evaluate(fallback, scope)
    value = attribute(value, name.text, node)
  }
  return value
}

function binary(node: Node, scope: Scope): Value {
  const left = evaluate(field(node, 'left'), scope)
  const right = evaluate(field(node, 'right'), scope)
  const operator = field(node, 'operator').type
  if (operator === '//') return merge(left, right, node)
  if (operator === '++') return concatenate([left, right], node)
  if (operator === '+' && left.is === 'path' && right.is === 'text') {
    return { is: 'path', text: join(left.text, right.text) }
  }
  return other(node)
}

function lookup(scope: Scope, name: string, at: Node): Value {
  const frames: Scope[] = []
  for (let frame: Scope | undefined = scope; frame; frame = frame.outer) frames.push(frame)
  for (const { names } of frames) {
    const found = names.get(name)
    if (found) return found()
  }
  for (const { dynamic } of frames) {
    const value = dynamic?.()
    if (value?.is === 'set' && value.attrs.has(name)) return attribute(value, name, at)
  }
  return outside(at, name)
}

const emptySet = (places: Place[] = []): SetValue => ({ is: 'set', attrs: new Map(), places, gaps: [] })

/** What a set or a list made of several parts does not show. */
const gapsOf = (all: Value[]): Unknown[] =>
  all.flatMap((one) => (one.is === 'unknown' ? [one] : one.is === 'set' || one.is === 'list' ? one.gaps : []))

/** `left // right` */
function merge(left: Value, right: Value, at: Node): Value {
  const known = [left, right].filter((side) => side.is === 'set')
  const gaps = gapsOf([left, right])
  if (known.length === 0) return gaps.find(({ listing }) => listing) ?? gaps[0] ?? other(at)
  return {
    is: 'set',
    attrs: new Map(known.flatMap(({ attrs }) => [...attrs])),
    places: known.flatMap(({ places }) => places),
    gaps,
  }
}

function concatenate(all: Value[], at: Node): Value {
  const known = all.filter((part) => part.is === 'list')
  const gaps = gapsOf(all)
  if (known.length === 0) return gaps.find(({ listing }) => listing) ?? gaps[0] ?? other(at)
  return {
    is: 'list',
    items: known.flatMap(({ items }) => items),
    places: known.flatMap(({ places }) => places),
    gaps,
  }
}

/** A function of Nix or nixpkgs: how many arguments it takes, and what comes of them. */
type LibraryFunction = [arity: number, run: (args: Thunk[], at: Node) => Value]

const curry =
  ([arity, run]: LibraryFunction, at: Node, before: Thunk[] = []): Call =>
  (given) => {
    const args = [...before, given]
    return args.length < arity ? { is: 'function', call: curry([arity, run], at, args) } : run(args, at)
  }

/** Runs on a set; what is unknown passes through, because its own place says more. */
const onSet =
  (index: number, arity: number, run: (set: SetValue, args: Thunk[], at: Node) => Value): LibraryFunction =>
  [
    arity,
    (args, at) => {
      const value = args[index]!()
      return value.is === 'set' ? run(value, args, at) : value.is === 'unknown' ? value : other(at)
    },
  ]

/** The same on a list. */
const onList =
  (index: number, arity: number, run: (list: ListValue, args: Thunk[], at: Node) => Value): LibraryFunction =>
  [
    arity,
    (args, at) => {
      const value = args[index]!()
      return value.is === 'list' ? run(value, args, at) : value.is === 'unknown' ? value : other(at)
    },
  ]

const call2 = (f: Thunk, a: Thunk, b: Thunk, at: Node): Value => call(call(f(), a, at), b, at)

const nameOf = ([name, attr]: [string, Attr]): Thunk => () => asText(name, attr.literals[0])

/** What a new entry of an empty set must look like is not to be seen once a function is mapped over it. */
const mapped = (set: SetValue): Place[] => (set.attrs.size > 0 ? set.places : [])

const mapList = (list: ListValue, f: Thunk, at: Node): ListValue => ({
  ...list,
  items: list.items.map((item) => lazy(at, () => call(f(), item, at))),
})

const entries = (set: SetValue, f: Thunk, at: Node): ListValue => ({
  is: 'list',
  items: [...set.attrs].map((entry) => lazy(at, () => call2(f, nameOf(entry), entry[1].value, at))),
  places: mapped(set),
  gaps: set.gaps,
})

const fold = (list: ListValue, at: Node): Value =>
  list.items.reduce<Value>((sum, item) => merge(sum, item(), at), { ...emptySet(), gaps: list.gaps })

/** The set of names and values, one of each an item. */
function pairs(list: ListValue, pair: (item: Thunk) => { name: Value; value: Thunk }, at: Node): SetValue {
  const result: SetValue = { ...emptySet(list.places), gaps: [...list.gaps] }
  for (const { name, value } of list.items.map(pair)) {
    if (name.is === 'text') {
      result.attrs.set(name.text, { value, literals: name.literal ? [name.literal] : [] })
    } else result.gaps.push(name.is === 'unknown' ? name : unknown(at, 'a name is no string'))
  }
  return result
}

const listToAttrs = (list: ListValue, at: Node): SetValue =>
  pairs(
    list,
    (item) => ({
      name: attribute(item(), 'name', at),
      value: lazy(at, () => attribute(item(), 'value', at)),
    }),
    at,
  )

/** Which names pass a filter is not decided here, so nothing can be added before it. */
const filtered: LibraryFunction[1] = (args, at) => {
  const value = args[1]!()
  return value.is === 'unknown' ? value : unknown(at, `they are filtered by \`${abridged(at)}\``)
}

/**
 * The functions that make, keep or join names, by their last name alone: `lib.genAttrs` and
 * `inputs.nixpkgs.lib.attrsets.genAttrs` are one.
 */
const library: Record<string, LibraryFunction> = {
  attrNames: onSet(0, 1, (set) => ({
    is: 'list',
    items: [...set.attrs].map(nameOf),
    places: mapped(set),
    gaps: set.gaps,
  })),
  attrValues: onSet(0, 1, (set) => ({
    is: 'list',
    items: [...set.attrs.values()].map(({ value }) => value),
    places: [],
    gaps: set.gaps,
  })),
  concatLists: onList(0, 1, ({ items }, _, at) => concatenate(items.map((item) => item()), at)),
  concatMapAttrs: onSet(1, 2, (set, [f], at) => fold(entries(set, f!, at), at)),
  filter: [2, filtered],
  filterAttrs: [2, filtered],
  flip: [3, ([f, a, b], at) => call2(f!, b!, a!, at)],
  "foldl'": onList(2, 3, ({ items }, [f, start], at) =>
    items.reduce((sum, item) => call2(f!, () => sum, item, at), start!()),
  ),
  forEach: onList(0, 2, (list, [, f], at) => mapList(list, f!, at)),
  genAttrs: onList(0, 2, (list, [, f], at) =>
    pairs(list, (item) => ({ name: item(), value: lazy(at, () => call(f!(), item, at)) }), at),
  ),
  import: [1, ([path], at) => imported(path!(), at)],
  listToAttrs: onList(0, 1, (list, _, at) => listToAttrs(list, at)),
  map: onList(1, 2, (list, [f], at) => mapList(list, f!, at)),
  mapAttrs: onSet(1, 2, (set, [f], at) => ({
    ...set,
    attrs: new Map(
      [...set.attrs].map(([name, attr]) => {
        const value = lazy(at, () => call2(f!, nameOf([name, attr]), attr.value, at))
        return [name, { ...attr, value }]
      }),
    ),
    places: mapped(set),
  })),
  "mapAttrs'": onSet(1, 2, (set, [f], at) => listToAttrs(entries(set, f!, at), at)),
  mapAttrsToList: onSet(1, 2, (set, [f], at) => entries(set, f!, at)),
  mergeAttrsList: onList(0, 1, (list, _, at) => fold(list, at)),
  mkFlake: [2, ([, module], at) => flakeParts([module!()], at)],
  mkMerge: onList(0, 1, (list, _, at) => fold(list, at)),
  nameValuePair: [
    2,
    ([name, value]) => {
      const set = emptySet()
      set.attrs.set('name', { value: name!, literals: [] }).set('value', { value: value!, literals: [] })
      return set
    },
  ],
  pipe: onList(1, 2, ({ items }, [start], at) =>
    items.reduce((value, step) => call(step(), () => value, at), start!()),
  ),
  readDir: [
    1,
    ([path], at) => {
      const of = path!()
      const listing = of.is === 'path' ? of.text : abridged(at)
      return { ...unknown(at, 'they are listed from a directory'), listing }
    },
  ],
  recursiveUpdate: [2, ([left, right], at) => merge(left!(), right!(), at)],
}

/** `import ./hosts`: only a path that stands in the source is followed. */
function imported(target: Value, at: Node): Value {
  if (target.is !== 'path') return unknown(at, `they come from \`${abridged(at)}\``)
  let path = target.text
  if (existsSync(path) && statSync(path).isDirectory()) path = join(path, 'default.nix')
  if (!existsSync(path)) return unknown(at, `\`${abridged(at)}\` is not there`)
  const { root } = sourceOf(at).open(path)
  const broken = firstError(root)
  return broken ? unknown(broken, 'there is a syntax error') : evaluate(root)
}

/** flake-parts: `flake` of a module, and of those that it imports by path. */
function flakeParts(modules: Value[], at: Node): Value {
  const found = emptySet()
  const seen = new Set<string>()
  const add = (given: Value): void => {
    if (given.is === 'path' && seen.has(given.text)) return
    if (given.is === 'path') seen.add(given.text)
    const file = given.is === 'path' ? imported(given, at) : given
    const module = file.is === 'function' ? file.call(() => argument(at)) : file
    if (module.is !== 'set') {
      found.gaps.push(...gapsOf([module]))
      return
    }
    const config = module.attrs.get('config')?.value() ?? module
    const flake = config.is === 'set' ? config.attrs.get('flake')?.value() : config
    found.gaps.push(...gapsOf(flake ? [flake] : []))
    for (const [name, attr] of flake?.is === 'set' ? flake.attrs : []) {
      const before = found.attrs.get(name)
      const value = lazy(at, () => (before ? merge(before.value(), attr.value(), at) : attr.value()))
      found.attrs.set(name, { value, literals: [...(before?.literals ?? []), ...attr.literals] })
    }
    const imports = module.attrs.get('imports')?.value()
    found.gaps.push(...gapsOf(imports ? [imports] : []))
    for (const item of imports?.is === 'list' ? imports.items : []) add(item())
  }
  modules.forEach(add)
  return found
}
