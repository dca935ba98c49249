import { Failure } from '../failure.ts'
import { bindingsOf, nixReader, parts, type Node } from './syntax.ts'

/**
 * The text of a flake.nix whose outputs go through one function more. Its inputs, the arguments of its outputs
 * (which name inputs, too) and its comments stay as they are.
 * @param path of the file, for messages
 * @param through the function, as Nix code
 * @throws Failure where the outputs are no function that is written there
 */
export async function throughOutputs(path: string, text: string, through: string): Promise<string> {
  const { root } = (await nixReader({ [path]: text }))(path)
  const body = bodyOf(root)
  if (!body) {
    throw new Failure(`Cannot find \`outputs = { self, ... }: …\` in \`${path}\``, {
      hint: 'nix --extra-experimental-features "nix-command flakes" flake show tells what is wrong with it',
    })
  }
  const { startIndex, endIndex } = body
  return `${text.slice(0, startIndex)}${through} (${body.text})${text.slice(endIndex)}`
}

/** What the function of the outputs gives. Nix takes nothing but a function that is written out there. */
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
