import { readFileSync } from 'node:fs'
import type { Node, Tree } from 'web-tree-sitter'
import { usage } from '../failure.ts'
import { parserOf } from '../grammar.ts'

export type { Node } from 'web-tree-sitter'

/** A parsed Nix file. Offsets of its nodes count UTF-16 units, so they index `text` directly. */
export interface NixSource {
  path: string
  text: string
  root: Node
  /** The first syntax error, unless nix was asked and found none; the root if the text `isMarked`. */
  broken?: Node
  /** Parses another file in the same way. */
  open: ReadNix
}

/**
 * Parses a file, once. Syntax errors show in the tree (`firstError`).
 * @throws Failure (usage) when it is not UTF-8 text
 */
export type ReadNix = (path: string) => NixSource

const sources = new WeakMap<Tree, NixSource>()

/** `inherit (x) ;` without names, which the grammar does not know. */
const emptyInherit = /\binherit\s*(?:\((?:[^()]|\([^()]*\))*\)\s*)?;/g

/**
 * A reader of Nix files.
 * @param instead texts to use instead of the content of files, by path
 * @param whole files that nix can parse, even where this grammar finds errors
 */
export async function nixReader(
  instead: Record<string, string> = {},
  whole: ReadonlySet<string> = new Set(),
): Promise<ReadNix> {
  const nix = await parserOf('nix')
  const opened = new Map<string, NixSource>()
  const open = (path: string): NixSource => {
    const before = opened.get(path)
    if (before) return before
    const text = instead[path] ?? decode(readFileSync(path), path)
    // The grammar is older than the pipe operators, so it is shown one that binds in the same way.
    // The text of a node is read later, and comes from the file.
    let shown = text
      .replaceAll(/\|>|<\|/g, '->')
      .replaceAll(emptyInherit, (nothing) => nothing.replaceAll(/[^\r\n]/g, ' '))
    const tree = nix.parse((index) => shown.slice(index))
    shown = text
    if (!tree) throw new Error(`No tree for ${path}`)
    const root = tree.rootNode
    const source = {
      path,
      text,
      root,
      open,
      broken: whole.has(path) ? undefined : isMarked(text) ? root : firstError(root),
    }
    sources.set(tree, source)
    opened.set(path, source)
    return source
  }
  return open
}

/** The file that a node was parsed from. */
export function sourceOf(node: Node): NixSource {
  const source = sources.get(node.tree)
  if (!source) throw new Error(`No source for a ${node.type}`)
  return source
}

/** Whether a text begins with a byte order mark, as some editors write it; the grammar skips it, nix does not. */
export const isMarked = (text: string): boolean => text.startsWith('\uFEFF')

/** Line of a node in its file, counted from 1. */
export const lineOf = (node: Node): number => node.startPosition.row + 1

/**
 * The node of the first syntax error, or undefined. An unclosed bracket makes the parser give up
 * on everything around it, so the innermost of nested errors is taken, and in it the bracket.
 */
export function firstError(root: Node): Node | undefined {
  if (!root.hasError || isTrailingComma(root)) return undefined
  for (const child of root.children) {
    const found = firstError(child)
    if (found) return found
  }
  if (!root.isError) return root.isMissing ? root : undefined
  return root.children.findLast(({ type }) => ['{', '[', '('].includes(type)) ?? root
}

/** How many syntax errors there are below a node. */
export const faults = (node: Node): number =>
  [...nodesOf(node, (one) => !one.hasError)].filter(
    (one) => (one.isError || one.isMissing) && firstError(one),
  ).length

/** `{ a, b, }:` is valid, and how nixfmt writes it; the grammar reports a missing argument there. */
function isTrailingComma(node: Node): boolean {
  const last = node.isMissing ? node.parent : node.isError && node.text === ',' ? node : undefined
  return last?.parent?.type === 'formals' && last.nextSibling?.type === '}'
}

/**
 * Decodes a file's bytes so that encoding restores them: a byte order mark is kept.
 * @throws Failure (usage) when they are not UTF-8
 */
export function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw usage(`Cannot read \`${path}\`: it is not UTF-8 text`, 'Save it anew as UTF-8')
  }
}

const escapes: Record<string, string> = { n: '\n', r: '\r', t: '\t' }

/** The text of a child of a string or path literal; undefined for an interpolation. */
export function pieceText(piece: Node): string | undefined {
  if (piece.type === 'interpolation') return undefined
  if (piece.type === 'escape_sequence') return escapes[piece.text[1]!] ?? piece.text.slice(1)
  // the backslash before `${`
  if (piece.type === 'dollar_escape') return ''
  return piece.text
}

/** The text of an attribute name or a string literal; undefined if it contains an interpolation. */
export function staticText(node: Node): string | undefined {
  if (node.type === 'identifier') return node.text
  if (node.type !== 'string_expression') return undefined
  const pieces = node.namedChildren.map(pieceText)
  return pieces.includes(undefined) ? undefined : pieces.join('')
}

/** A Nix string literal that evaluates to any given text. */
export function nixString(text: string): string {
  const named: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }
  const escaped = text.replace(/["\\]|\$(?=\{)|[\n\r\t]/g, (found) => named[found] ?? `\\${found}`)
  return `"${escaped}"`
}

const keywords = ['assert', 'else', 'if', 'in', 'inherit', 'let', 'or', 'rec', 'then', 'with']

/** An attribute name: bare where Nix allows it, else a string. */
export const attributeName = (text: string): string =>
  /^[A-Za-z_][A-Za-z0-9_'-]*$/.test(text) && !keywords.includes(text) ? text : nixString(text)

/** The children of a list or an attribute path, without comments. */
export const parts = (node: Node): Node[] =>
  node.namedChildren.filter((child) => child.type !== 'comment')

/** A node and those below it, in order, without what is below one that fits `whole`; not recursive, for deep trees. */
export function* nodesOf(node: Node, whole: (one: Node) => boolean = () => false): Generator<Node> {
  const waiting = [node]
  for (let one = waiting.pop(); one; one = waiting.pop()) {
    yield one
    if (!whole(one)) for (const child of one.children.toReversed()) waiting.push(child)
  }
}

/** The nodes without children under a node, in order: its tokens, and its comments too. */
export const leaves = (node: Node): Node[] =>
  [...nodesOf(node)].filter(({ childCount }) => childCount === 0)

/** Where a node ends. The grammar includes the CR of a CRLF in a comment; it belongs to the line's end. */
export const endOf = (node: Node): number => node.endIndex - (node.text.endsWith('\r') ? 1 : 0)

/** The bindings and `inherit` clauses of a set. */
export const bindingsOf = (set: Node): Node[] =>
  set.namedChildren.find(({ type }) => type === 'binding_set')?.namedChildren ?? []

/** Whether a node equals another or is inside it; both must be of the same file. */
export const within = (inner: Node, outer: Node): boolean =>
  inner.startIndex >= outer.startIndex && inner.endIndex <= outer.endIndex
