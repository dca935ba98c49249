import type { Node } from 'web-tree-sitter'
import { bodyOf, conditionOf, lineAt, parseShell } from './bash.ts'
import { firstWord, type Hits } from './trace.ts'

/** A step that bash shows in a trace, or a branch that it can take. */
export interface Unit {
  kind: 'step' | 'branch'
  /** First and last line, from 1. */
  lines: [number, number]
  /** The text of a step; the kind of a branch: `then`, `else`, `after ||`, ... */
  what: string
  /** Whether it has run, according to a trace. */
  ran: (hits: Hits[string] | undefined) => boolean
}

/** Nodes that bash prints in a trace; functions, blocks and bare redirections leave no line. */
const shown = [
  ...['command', 'test_command', 'variable_assignment', 'declaration_command'],
  ...['case_statement', 'for_statement'],
]

/**
 * Everything that a trace can show of a program: its steps, and the branches of each `if`, `case`, loop, `&&` and
 * `||`. For an `if` without `else`, the branch past it counts only where its condition is one test: bash shows each
 * part of a longer condition separately.
 */
async function unitsOf(text: string): Promise<Unit[]> {
  const units: Unit[] = []
  const of = (node: Node): string => text.slice(node.startIndex, node.endIndex)
  const linesOf = (node: Node): [number, number] => [
    lineAt(text, node.startIndex),
    lineAt(text, node.endIndex),
  ]
  const times = (node: Node, hits: Hits[string] | undefined): number => {
    const word = wordOf(node, of)
    const [first, last] = linesOf(shownAs(node))
    let sum = 0
    for (let line = first; line <= last; line++)
      for (const [ran, count] of Object.entries(hits?.[line] ?? {}))
        if (word === undefined || ran === word) sum += count
    return sum
  }
  const branch = (what: string, at: Node, into: Node | undefined): void => {
    const first = into && firstShown(into)
    if (!first) return
    units.push({ kind: 'branch', what, lines: linesOf(at), ran: (hits) => times(first, hits) > 0 })
  }
  const past = (node: Node): void => {
    const [condition, last] = conditionOf(node)
    const into = bodyOf(node)
      .map((one) => firstShown(one))
      .find(Boolean)
    const simple =
      condition?.id === last?.id && condition && /^(test_command|command)$/.test(condition.type)
    if (!simple || !into || condition.descendantsOfType(['&&', '||']).length > 0) return
    if (node.children.some(({ type }) => type === 'else_clause' || type === 'elif_clause')) return
    const ran = (hits: Hits[string] | undefined): boolean =>
      times(condition, hits) > times(into, hits)
    units.push({ kind: 'branch', what: 'past it', lines: linesOf(condition), ran })
  }
  const visit = (node: Node): void => {
    if (shown.includes(node.type) && isStep(node)) {
      units.push({
        kind: 'step',
        what: of(node),
        lines: linesOf(node),
        ran: (hits) => times(node, hits) > 0,
      })
    }
    if (node.type === 'if_statement' || node.type === 'elif_clause') {
      const [then] = bodyOf(node)
      branch('then', then ?? node, then)
      if (node.type === 'if_statement') past(node)
    }
    if (node.type === 'else_clause') branch('else', node, bodyOf(node)[0])
    if (node.type === 'case_item') branch('case', node, bodyOf(node)[0])
    if (node.type === 'do_group') branch('loop', node, bodyOf(node)[0])
    if (node.type === 'list') {
      const sign = node.children.find(({ type }) => type === '||' || type === '&&')?.type ?? ';'
      branch(`after ${sign}`, node.lastNamedChild!, node.lastNamedChild!)
    }
    for (const child of node.children) visit(child)
  }
  visit(await parseShell(text))
  return units
}

/**
 * The node whose lines a trace shows for this one. A substitution is shown with the line of the statement that contains
 * it; a process substitution from which a loop or a block reads, with the head of the function, or outside of functions
 * with the end of the loop.
 */
function shownAs(node: Node): Node {
  let at: Node | null = node
  while (at && !/^(command|process)_substitution$/.test(at.type)) at = at.parent
  while (at && !substitutedIn.test(at.type)) at = at.parent
  if (!at) return node
  const [body] = at.namedChildren
  if (at.type !== 'redirected_statement' || !compound.test(body!.type)) return shownAs(at)
  let within: Node | null = at
  while (within && within.type !== 'function_definition') within = within.parent
  return within ? within.namedChildren[0]! : at.lastNamedChild!
}
const substitutedIn =
  /^(command|redirected_statement|declaration_command|.*_assignments?|test_command)$/
const compound = /^((while|for|c_style_for|if|case|compound)_statement|subshell)$/

/** An assignment in front of a command, or in a `local`, is not a step of its own. */
const isStep = (node: Node): boolean =>
  node.type !== 'variable_assignment' ||
  !/^(command|declaration_command)$/.test(node.parent?.type ?? '')

function firstShown(node: Node): Node | undefined {
  if (shown.includes(node.type) && isStep(node)) return node
  for (const child of node.namedChildren) {
    // a function's body may run later, but is not part of this branch
    const found = child.type === 'function_definition' ? undefined : firstShown(child)
    if (found) return found
  }
  return undefined
}

/** The first word that the trace shows for a node, if the program determines it. */
function wordOf(node: Node, of: (node: Node) => string): string | undefined {
  if (node.type === 'test_command')
    return of(node).startsWith('((') ? undefined : of(node).slice(0, 2).trim()
  if (node.type === 'variable_assignment') return firstWord(of(node))
  if (/^(case|for)_statement$/.test(node.type)) return node.type.split('_')[0]
  if (node.type === 'declaration_command') return of(node).split(/\s/)[0]
  const name = node.namedChildren.find(({ type }) => type === 'command_name')
  return name && /^[\w./:[-]+$/.test(of(name)) ? of(name) : undefined
}

export interface Covered {
  agent: string
  text: string
  units: (Pick<Unit, 'kind' | 'lines' | 'what'> & { tests: boolean; scenarios: boolean })[]
}

/** Which units of one agent tests and scenarios have run. */
export async function covered(
  file: string,
  text: string,
  tests: Hits,
  scenarios: Hits,
): Promise<Covered> {
  const units = await unitsOf(text)
  return {
    agent: file.replace(/\.sh$/, ''),
    text,
    units: units.map(({ kind, lines, what, ran }) => {
      return { kind, lines, what, tests: ran(tests[file]), scenarios: ran(scenarios[file]) }
    }),
  }
}

export interface Counts {
  agent: string
  kind: 'lines' | 'branches'
  all: number
  tests: number
  scenarios: number
  neither: number
}

/** Counts lines with a step, or branches, by what has run them. A line has run when each step that begins on it has. */
export function counts({ agent, units }: Covered, kind: 'lines' | 'branches'): Counts {
  const own = units.filter((one) => one.kind === (kind === 'lines' ? 'step' : 'branch'))
  const begins = [...new Set(own.map(({ lines: [first] }) => first))]
  const groups =
    kind === 'branches'
      ? own.map((one) => [one])
      : begins.map((line) => own.filter(({ lines: [first] }) => first === line))
  const count = (holds: (one: Covered['units'][number]) => boolean): number =>
    groups.filter((group) => group.every(holds)).length
  return {
    ...{ agent, kind, all: groups.length },
    tests: count(({ tests }) => tests),
    scenarios: count(({ scenarios }) => scenarios),
    neither: groups.length - count(({ tests, scenarios }) => tests || scenarios),
  }
}
