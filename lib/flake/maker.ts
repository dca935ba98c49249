import { nixString, parts, type Node } from './syntax.ts'
import type { Scope } from './value.ts'

/** A call of `mkHost` or the like, if exactly one such function is in scope and it needs only a host's name. */
export function hostMaker(scope: Scope, name: string): string | undefined {
  const makers = new Map<string, string | undefined>()
  for (let frame: Scope | undefined = scope; frame; frame = frame.outer) {
    for (const [variable, value] of frame.names) {
      if (
        makers.has(variable) ||
        !/^(mk|make|build)-?(nixos)?-?(host|system|machine)/i.test(variable)
      )
        continue
      const made = value()
      const wants =
        made.is === 'function' && made.lambda ? nameArgument(made.lambda, name) : undefined
      makers.set(variable, wants && `${variable} ${wants}`)
    }
  }
  const [only, ...others] = makers.values()
  return others.length === 0 ? only : undefined
}

/** The argument for a function that needs only a host's name; undefined for another function. */
function nameArgument(lambda: Node, name: string): string | undefined {
  const isName = /^(host-?name|host|name)$/i
  const formals = lambda.childForFieldName('formals')
  if (!formals) {
    const onlyName = lambda.childForFieldName('body')?.type !== 'function_expression'
    const plain = isName.test(lambda.childForFieldName('universal')?.text ?? '')
    return plain && onlyName ? nixString(name) : undefined
  }
  const [formal, ...others] = parts(formals).filter(
    (one) => one.type === 'formal' && !one.childForFieldName('default'),
  )
  const wanted = formal?.childForFieldName('name')?.text ?? ''
  return others.length === 0 && isName.test(wanted)
    ? `{ ${wanted} = ${nixString(name)}; }`
    : undefined
}
