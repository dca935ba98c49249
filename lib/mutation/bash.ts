import type { Node } from 'web-tree-sitter'
import { parserOf } from '../grammar.ts'
import type { Edit, Kind } from './edit.ts'

const hidden = (text: string): string => text.replaceAll(/[^\n]/g, 'x')
const blank = (text: string): string => ' '.repeat(text.length)

/**
 * Parses a bash program. Text that the grammar cannot parse (escaped quotes and blanks, quoted parts of patterns,
 * `<>`, assignments above a keyword) is replaced by text of the same length: offsets are those of the program, and
 * callers take the text and line of a node from the program.
 */
export async function parseShell(text: string): Promise<Node> {
  const shown = text
    .replaceAll(/\\["'\\ `u:]/g, 'xx')
    .replaceAll(/(?<=\[\[.*)[@?*+!]\([^()\n]*\)(?=.*\]\])/g, hidden)
    .replaceAll(/(?<=\])' '(?=")/g, hidden)
    .replaceAll('<>', '> ')
    .replaceAll(/(?<=\[\[.*)\)\$(?=\)* (\|\||&&|\]\]))/g, ')x')
    .replaceAll(/(?<=\*|==.*\*)(?:"[^"$\n]*"|'[^'\n]*')(?=\*)/g, hidden)
    .replaceAll(/(?<=0x)\$\{[^}]*\}/g, hidden)
    .replaceAll(/\bcoproc \w+(?= \{)/g, blank)
    .replaceAll(
      /^([ \t]*\w+\+?=(?:[^\n#]|(?<! )#)*?[\w'"})\]])( *(?: #[^\n]*)?)\n(?=(?:[ \t]*#[^\n]*\n)*[ \t]*(?:for|if|elif|else|while|until|case|\w+=))/gm,
      (_, assignments: string, comment: string) => `${assignments}${blank(comment)};`,
    )
  const tree = (await parserOf('bash')).parse(shown)
  if (!tree) throw new Error('No tree for a program')
  return tree.rootNode
}

/** Nodes that hold statements: between `then` and `fi`, `do` and `done`, in braces, or at the top of the file. */
const blocks = ['program', 'compound_statement', 'do_group', 'case_item', 'else_clause']
const statements = [
  ...['command', 'redirected_statement', 'pipeline', 'list', 'negated_command', 'test_command'],
  ...[
    'variable_assignment',
    'variable_assignments',
    'if_statement',
    'for_statement',
    'unset_command',
  ],
  ...['while_statement', 'c_style_for_statement', 'case_statement', 'subshell'],
]
const swapped: Record<string, string> = {
  ...{ '==': '!=', '!=': '==', '=': '!=', '-z': '-n', '-n': '-z' },
  ...{ '-lt': '-le', '-le': '-lt', '-gt': '-ge', '-ge': '-gt', '-eq': '-ne', '-ne': '-eq' },
  ...{ '<': '<=', '<=': '<', '>': '>=', '>=': '>' },
}
/** Messages to the user, and waits that only save the machine work: no mutant drops or moves them. */
const idle = /^(say|complain|sleep)\b/

/** All mutants of a bash program: small changes that a careless edit could make. */
export async function editsOfShell(text: string): Promise<Edit[]> {
  const edits: Edit[] = []
  const of = (node: Node): string => text.slice(node.startIndex, node.endIndex)
  const put = (kind: Kind, node: Node, instead: string, last: Node = node): void => {
    const [from, to] = [node.startIndex, last.endIndex]
    const known = edits.some((one) => one.from === from && one.to === to && one.instead === instead)
    if (known || instead === text.slice(from, to)) return
    // the rest of a line with a here-document is not next to it in the text
    if (last.descendantsOfType('heredoc_redirect').length > 0) return
    const lines: [number, number] = [lineAt(text, from), lineAt(text, to)]
    edits.push({ kind, from, to, instead, within: functionOf(node), lines })
  }
  /** The text from the first node to the last. */
  const between = (first: Node, last: Node): string => text.slice(first.startIndex, last.endIndex)

  const visit = (node: Node): void => {
    if (node.isError) return
    dropStatements(node)
    if (['if_statement', 'elif_clause'].includes(node.type)) change(node)
    if (node.type === 'list') unguard(node)
    if (node.type === 'command') command(node)
    if (node.type === 'case_statement') dropBranches(node)
    if (node.type === 'file_redirect' && of(node) === '9>&-') put('lock', node, '')
    if (['binary_expression', 'unary_expression'].includes(node.type)) compare(node)
    if (node.type === 'number' || (node.type === 'word' && /^\d+$/.test(of(node)))) count(node)
    for (const child of node.children) visit(child)
  }

  function dropStatements(node: Node): void {
    const own = bodyOf(node).filter((child) => statements.includes(child.type))
    for (const [index, child] of own.entries()) {
      if (idle.test(of(child))) continue
      const kind = /^sync\b/.test(of(child))
        ? 'sync'
        : /^(flock|locked|unlocked)\b/.test(of(child))
          ? 'lock'
          : 'statement'
      put(kind, child, ':')
      const next = own[index + 1]
      if (!next || !isStep(child) || !isStep(next) || idle.test(of(next))) continue
      const gap = text.slice(child.endIndex, next.startIndex)
      put('order', child, of(next) + gap + of(child), next)
    }
  }

  function change(node: Node): void {
    const [first, last] = conditionOf(node)
    if (!first || !last) return
    const condition = between(first, last)
    put(
      'condition',
      first,
      condition.startsWith('! ') ? condition.slice(2) : `! { ${condition}; }`,
      last,
    )
    put('condition', first, 'true', last)
    put('condition', first, 'false', last)
  }

  function unguard(node: Node): void {
    const [left, right] = [node.firstNamedChild, node.lastNamedChild]
    if (!left || !right || left.id === right.id || /^(true|:)$/.test(of(right))) return
    const or = node.children.some((child) => child.type === '||')
    put('guard', node, or ? `${of(left)} || true` : of(left))
    put('guard', node, of(right))
  }

  function command(node: Node): void {
    const name = of(node.firstNamedChild!)
    if (name === 'sync') put('sync', node, 'true')
    if (name === 'flock') put('lock', node, 'true')
    if (name !== 'timeout') return
    const args = node.namedChildren.slice(1)
    const limit = args.findIndex((arg) => !of(arg).startsWith('-'))
    if (limit >= 0 && args[limit + 1]) put('timeout', node, between(args[limit + 1]!, args.at(-1)!))
  }

  function dropBranches(node: Node): void {
    const items = node.namedChildren.filter(({ type }) => type === 'case_item')
    if (items.length > 1) for (const item of items) put('branch', item, '')
  }

  function compare(node: Node): void {
    const operator = node.children.find(
      (child) => of(child) in swapped || /^(&&|\|\|)$/.test(of(child)),
    )
    if (!operator) return
    const sign = of(operator)
    if (sign === '&&' || sign === '||') {
      put('condition', node, of(node.firstNamedChild!))
      put('condition', node, of(node.lastNamedChild!))
    } else if (!isWhole(node) || /[lg]/.test(swapped[sign]!) || /[<>]/.test(sign)) {
      put('comparison', operator, swapped[sign]!)
    }
  }

  function count(node: Node): void {
    const above = node.parent!.type
    const value = Number(of(node))
    if (['file_redirect', 'expansion', 'subscript', 'regex', 'case_item'].includes(above)) return
    const steps = ['binary_expression', 'arithmetic_expansion', 'ternary_expression'].includes(
      above,
    )
    put('constant', node, String(steps ? value + 1 : value === 0 ? 1 : 0))
  }

  visit(await parseShell(text))
  return edits.toSorted((a, b) => a.from - b.from)
}

/** The statements of a block; none if the node is no block. */
export function bodyOf(node: Node): Node[] {
  const then = node.children.findIndex(({ type }) => type === 'then')
  if (node.type === 'if_statement' || node.type === 'elif_clause')
    return node.children.slice(then + 1).filter(({ isNamed }) => isNamed)
  if (node.type === 'case_item') return node.namedChildren.slice(1)
  return blocks.includes(node.type) ? node.namedChildren : []
}

/** The first and last node of an `if` condition. */
export function conditionOf(node: Node): [Node | undefined, Node | undefined] {
  const then = node.children.findIndex(({ type }) => type === 'then')
  const own = node.children
    .slice(1, then)
    .filter(({ isNamed, type }) => isNamed && type !== 'comment')
  return [own[0], own.at(-1)]
}

/** Whether a comparison is the whole condition of an `if`: swapping it is the same as negating the condition. */
function isWhole(node: Node): boolean {
  const test = node.parent
  return (
    test?.type === 'test_command' &&
    ['if_statement', 'elif_clause'].includes(test.parent?.type ?? '')
  )
}

/** Line of an offset, counted from 1. */
export const lineAt = (text: string, offset: number): number =>
  text.slice(0, offset).split('\n').length

const isStep = ({ type }: Node): boolean =>
  ['command', 'redirected_statement', 'list'].includes(type)

function functionOf(node: Node): string {
  for (let at: Node | null = node; at; at = at.parent)
    if (at.type === 'function_definition') return at.firstNamedChild!.text
  return ''
}
