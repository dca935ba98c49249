import { Failure } from '../failure.ts'
import { bindingsOf, nixReader, parts, type Node } from './syntax.ts'

/**
 * The text of a flake.nix with one more function applied to its outputs. Its inputs, the arguments of its outputs
 * (which name inputs too) and its comments are unchanged.
 * @param path of the file, for messages
 * @param through the function, as Nix code
 * @throws Failure where the outputs are not a function literal in that file
 */
export async function throughOutputs(path: string, text: string, through: string): Promise<string> {
  const { root } = (await nixReader({ [path]: text }))(path)
  const body = bodyOf(root)
  if (!body) {
    throw new Failure(`Cannot find \`outputs = { self, ... }: …\` in \`${path}\``, {
      hint: 'nix --extra-experimental-features "nix-command flakes" flake show says what is wrong with it',
    })
  }
  const { startIndex, endIndex } = body
  return `${text.slice(0, startIndex)}${through} (${body.text})${text.slice(endIndex)}`
}

/** The body of the `outputs` function. Nix accepts only a function literal there. */
function bodyOf(root: Node): Node | undefined {
  const set = plain(parts(root)[0])
  const outputs = (set ? bindingsOf(set) : []).find(
    (one) => one.type === 'binding' && one.childForFieldName('attrpath')?.text === 'outputs',
  )
  const made = plain(outputs?.childForFieldName('expression'))
  return made?.type === 'function_expression'
    ? (made.childForFieldName('body') ?? undefined)
    : undefined
}

function plain(node: Node | null | undefined): Node | undefined {
  let inner = node ?? undefined
  while (inner?.type === 'parenthesized_expression')
    inner = inner.childForFieldName('expression') ?? undefined
  return inner
}
