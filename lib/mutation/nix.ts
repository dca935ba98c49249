import { nixReader, lineOf, type Node } from '../flake/syntax.ts'
import type { Edit } from './edit.ts'

/** Lists of a unit or a wrapper in which each entry matters. */
const lists =
  /(^|\.)(after|before|wants|wantedBy|requiredBy|path|runtimeInputs|assertions|kernelParams)$/
/** Sets of a unit in which each setting matters. */
const sets = /(^|\.)(serviceConfig|timerConfig|unitConfig)$/
const single = /(^|\.)(restartIfChanged|X-StopOnRemoval|RemainAfterExit)$/

/** All mutants of a module: each lacks one entry that orders or configures a unit, or equips one with programs. */
export async function editsOfModule(path: string): Promise<Edit[]> {
  const { root, text } = (await nixReader())(path)
  const edits: Edit[] = []
  const put = (node: Node, within: string): void => {
    const lines: [number, number] = [lineOf(node), node.endPosition.row + 1]
    edits.push({
      kind: 'module',
      from: node.startIndex,
      to: node.endIndex,
      instead: '',
      within,
      lines,
    })
  }
  const visit = (node: Node, within: string): void => {
    let inside = within
    if (node.type === 'binding') {
      const name = text.slice(node.firstNamedChild!.startIndex, node.firstNamedChild!.endIndex)
      inside = within ? `${within}.${name}` : name
      if (single.test(name) || (sets.test(within) && name !== 'ExecStart')) put(node, within)
      if (lists.test(name)) for (const entry of entries(node)) put(entry, inside)
    }
    for (const child of node.namedChildren) visit(child, inside)
  }
  visit(root, '')
  const whole = edits.filter((one, at) => edits.findIndex(({ from }) => from === one.from) === at)
  return whole.toSorted((a, b) => a.from - b.from)
}

/** The elements of every list in a binding's value. */
const entries = (node: Node): Node[] =>
  node
    .descendantsOfType('list_expression')
    .flatMap((list) => list.namedChildren.filter(({ type }) => type !== 'comment'))
