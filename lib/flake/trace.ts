import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { attempt } from '../failure.ts'
import { call, library } from './library.ts'
import { isDirectory } from './paths.ts'
import { bindingsOf, parts, pieceText, sourceOf, staticText, type Node } from './syntax.ts'
import {
  abridged,
  asPath,
  asText,
  attribute,
  compared,
  concatenate,
  emptySet,
  lazy,
  merge,
  other,
  truth,
} from './value.ts'
import { hasNames, isListed, opaque, outside, unknown } from './value.ts'
import type {
  Attr,
  Listing,
  Place,
  Scope,
  SetValue,
  TextValue,
  Thunk,
  Unknown,
  Value,
} from './value.ts'

/** Limits, because a recursive function over unknown values may never end. */
const deepest = 500
const longest = 200_000
let depth = 0
let steps = 0

/** Evaluates an expression; a whole file has an empty scope. */
export function evaluate(node: Node, scope: Scope = { names: new Map() }): Value {
  if (depth === 0) steps = 0
  if (depth >= deepest || ++steps > longest) return unknown(node, 'the definition has no end')
  depth++
  try {
    return (expressions[node.type] ?? other)(node, scope)
  } catch (error) {
    // the file is one that nix can parse and this grammar cannot
    if (error instanceof Unreadable) return unknown(node, `\`${abridged(node)}\` cannot be read`)
    throw error
  } finally {
    depth--
  }
}

class Unreadable extends Error {}

/** Runs `work` as one evaluation, with one limit of steps for all of it. */
export function inOneEvaluation<T>(work: () => T): T {
  if (depth === 0) steps = 0
  depth++
  try {
    return work()
  } finally {
    depth--
  }
}

let imports: Set<string> | undefined

/** What an `import` gave, before anything was called with it or taken from it. */
const origins = new WeakMap<Value, string>()

/** The path whose import gave this very value. */
export const importedFrom = (value: Value): string | undefined => origins.get(value)

/** The files and directories that are imported while `work` runs. */
export function recordingImports(work: () => void): string[] {
  const [outer, own] = [imports, new Set<string>()]
  imports = own
  try {
    work()
  } finally {
    imports = outer
  }
  return [...own]
}

const later = (node: Node, scope: Scope): Thunk => lazy(node, () => evaluate(node, scope))

const field = (node: Node, name: string): Node => {
  const child = node.childForFieldName(name)
  if (!child) throw new Unreadable(`A ${node.type} has no ${name}`)
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
  has_attr_expression: hasAttribute,
  unary_expression: (node, scope) => {
    const value = evaluate(field(node, 'argument'), scope)
    return value.is === 'truth' && operatorOf(node) === '!' ? truth(!value.holds) : other(node)
  },
  if_expression: (node, scope) => {
    const branches = ['consequence', 'alternative'].map((name) =>
      evaluate(field(node, name), scope),
    )
    const listed = branches.find(isListed)
    // which branch is taken is not known, so neither may contain a name that is written in the source
    return listed && branches.every((one) => isListed(one) || !hasNames(one))
      ? listed
      : { ...other(node), given: branches.map((one) => () => one) }
  },
  string_expression: text,
  path_expression: text,
}

/** `let` and `rec { }`: the names are in scope in the values. */
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

/** @param outer scope of `inherit x;`, which never sees the set's own names */
function bindings(node: Node, inner: Scope, outer: Scope): SetValue {
  const all = bindingsOf(node)
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
        source
          ? attribute(source(), name, literal, `${abridged(from)}.${name}`)
          : lookup(outer, name, literal),
      )
      result.attrs.set(name, { value, literals: [literal] })
    }
  }
  return result
}

function byName(all: Binding[], place: Place): SetValue {
  const result = emptySet([place])
  const names = new Map<string, { key: TextValue; literal: Node; binding: Binding }[]>()
  for (const binding of all) {
    const key = attributeText(binding.path[0]!, place.scope)
    if (key.is === 'unknown') {
      result.gaps.push(key)
      continue
    }
    const same = names.get(key.text) ?? []
    names.set(key.text, [...same, { key, literal: key.literal ?? binding.path[0]!, binding }])
  }
  for (const [name, found] of names) {
    const value = lazy(found[0]!.literal, () => {
      const direct = found.filter(({ binding }) => binding.path.length === 1)
      const nested = found.filter(({ binding }) => binding.path.length > 1)
      const values = direct.map(({ binding }) => evaluate(binding.value, place.scope))
      if (nested.length > 0) {
        const deeper = nested.map(({ binding }) => ({ ...binding, path: binding.path.slice(1) }))
        values.push(byName(deeper, { ...place, prefix: [...place.prefix, name] }))
      }
      return values.reduce((left, right) => merge(left, right, found[0]!.literal))
    })
    const { listing } = found[0]!.key
    result.attrs.set(name, { value, literals: found.map(({ literal }) => literal), listing })
  }
  return result
}

/** An attribute's name; for `${name} = …` it is the value of `name`. */
function attributeText(node: Node, scope: Scope): TextValue | Unknown {
  if (node.type === 'identifier') return { is: 'text', text: node.text, literal: node }
  const value =
    node.type === 'interpolation' ? evaluate(field(node, 'expression'), scope) : text(node, scope)
  if (value.is === 'text' || value.is === 'unknown') return value
  return unknown(node, 'an attribute has a computed name')
}

const isText = (value: Value): value is TextValue => value.is === 'text' || value.is === 'path'

/** The value as interpolated: a flake becomes its directory. */
const interpolated = (value: Value): Value => {
  const path = value.is === 'set' ? asPath(value) : undefined
  return path === undefined ? value : { is: 'path', text: path }
}

/** A string or a path: known if all interpolated values are. */
function text(node: Node, scope: Scope): TextValue | Unknown {
  const values = node.namedChildren.map((piece): Value => {
    const written = pieceText(piece)
    return written === undefined
      ? interpolated(evaluate(field(piece, 'expression'), scope))
      : asText(written)
  })
  const known = values.filter(isText)
  if (known.length < values.length)
    return values.find((value) => value.is === 'unknown') ?? other(node)
  const joined = known.map((value) => value.text).join('')
  const listing = known.find((value) => value.listing)?.listing
  if (node.type === 'path_expression') {
    return { is: 'path', text: resolve(dirname(sourceOf(node).path), joined), listing }
  }
  if (staticText(node) !== undefined) return asText(joined, node)
  // `"${name}"` is the name as written in the source; `"${name}-vm"` is written nowhere
  const [only, ...rest] = known
  return only?.is === 'text' && rest.length === 0 ? only : { ...asText(joined), listing }
}

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
    if (fallback && value.is === 'set' && !value.attrs.has(name.text))
      return evaluate(fallback, scope)
    value = attribute(value, name.text, node)
  }
  return value
}

/** `set ? a.b` */
function hasAttribute(node: Node, scope: Scope): Value {
  let value = evaluate(field(node, 'expression'), scope)
  for (const attr of parts(field(node, 'attrpath'))) {
    const name = attributeText(attr, scope)
    if (value.is !== 'set' || name.is === 'unknown') return other(node)
    const found: Attr | undefined = value.attrs.get(name.text)
    if (!found) return value.gaps.length > 0 ? other(node) : truth(false)
    value = found.value()
  }
  return truth(true)
}

function binary(node: Node, scope: Scope): Value {
  const operator = operatorOf(node)
  if (operator === '|>') return piped(node, scope)
  const left = evaluate(field(node, 'left'), scope)
  if (operator === '<|') return call(left, later(field(node, 'right'), scope), node)
  const right = evaluate(field(node, 'right'), scope)
  if (operator === '==') return compared(left, right, node, (a, b) => a === b)
  if (operator === '!=') return compared(left, right, node, (a, b) => a !== b)
  if (left.is === 'truth' && operator === '&&') return left.holds ? right : left
  if (left.is === 'truth' && operator === '||') return left.holds ? left : right
  if (operator === '//') return merge(left, right, node)
  if (operator === '++') return concatenate([left, right], node)
  if (operator === '+' && right.is === 'text') {
    const directory = asPath(left)
    const listing = right.listing ?? (left.is === 'path' ? left.listing : undefined)
    if (directory !== undefined) return { is: 'path', text: join(directory, right.text), listing }
    if (left.is === 'text') return { ...asText(left.text + right.text), listing }
  }
  return { ...other(node), given: [() => left, () => right] }
}

const operatorOf = (node: Node): string => field(node, 'operator').text

/** `a |> f |> g`, which the grammar nests to the right. */
function piped(node: Node, scope: Scope): Value {
  let given = later(field(node, 'left'), scope)
  let rest = field(node, 'right')
  while (rest.type === 'binary_expression' && operatorOf(rest) === '|>') {
    const [before, step] = [given, field(rest, 'left')]
    given = lazy(step, () => call(evaluate(step, scope), before, step))
    rest = field(rest, 'right')
  }
  return call(evaluate(rest, scope), given, node)
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
  return name === 'true' || name === 'false' ? truth(name === 'true') : outside(at, name)
}

/** `import ./hosts`: only a path that the source shows is followed. */
function imported(target: Value, at: Node): Value {
  const named = asPath(target)
  if (named === undefined || (target.is !== 'path' && target.is !== 'text')) {
    return { ...opaque(at, `the hosts come from \`${abridged(at)}\``), given: [() => target] }
  }
  imports?.add(named)
  const value = contentOf(named, target.listing, at)
  origins.set(value, named)
  return value
}

function contentOf(named: string, listing: Listing | undefined, at: Node): Value {
  if (listing) return unknown(at, `the hosts come from the files in \`${listing.directory}\``)
  let path = named
  if (isDirectory(path)) path = join(path, 'default.nix')
  if (!existsSync(path)) return unknown(at, `\`${path}\` does not exist`)
  const root = opened(path, at)
  if (!root) return unknown(at, `\`${path}\` is no text`)
  const broken = sourceOf(root).broken
  return broken
    ? { ...unknown(broken, 'there is a syntax error'), fault: 'syntax' }
    : evaluate(root)
}

library['import'] = [1, ([path], at) => imported(path!(), at)]

/** The tree of a file; undefined when it is not UTF-8 text, as encrypted secrets are not. */
function opened(path: string, at: Node): Node | undefined {
  return attempt(
    () => sourceOf(at).open(path).root,
    () => undefined,
  )
}
