import { dirname, relative } from 'node:path'
import {
  attributeName,
  bindingsOf,
  lineOf,
  nixString,
  parts,
  sourceOf,
  type Node,
} from './syntax.ts'
import type { Outline, Place } from './value.ts'

/** The edit for the user to make by hand where add-to-flake makes none. Lines count from 1. */
export interface ByHand {
  file: string
  line: number
  /** The range that `text` replaces, in UTF-16 units of the file. */
  offset: number
  length: number
  text: string
  /** The same in words, to follow the place in a message. */
  words: string
}

/**
 * The entry that makes a host of the files that scaffold-host writes, and the place to write it.
 * @param own absolute path of the host's files
 */
export function byHand(
  { hosts, bound, outputs, body, nixpkgs }: Outline,
  name: string,
  own: string,
): ByHand {
  const entry = (at: Node): string => {
    const path = relativePath(sourceOf(at).path, own)
    return `${attributeName(name)} = ${systemFunction(at, nixpkgs)} { modules = [ ${path} ]; };`
  }
  const into = ({ node, under }: Place, before = ''): ByHand => {
    const open = node.children.find(({ type }) => type === '{')!
    const text = `${under ? `${under}.` : ''}${before}${entry(node)}`
    return {
      ...placeOf(node),
      ...{ offset: open.endIndex, length: 0, text: ` ${text}` },
      words: ` in the set that begins there: ${text}`,
    }
  }
  const [place] = hosts.is === 'set' ? hosts.places : []
  if (place && isDirect(place, bound) && reachesNixpkgs(place.node, nixpkgs)) {
    return into(place, place.prefix.map((one) => `${attributeName(one)}.`).join(''))
  }
  if (!bound && outputs && !isTaken(outputs) && reachesNixpkgs(outputs.node, nixpkgs))
    return into(outputs, 'nixosConfigurations.')
  const beside = bound && reachesNixpkgs(bound, nixpkgs) ? besides(bound, entry) : undefined
  return beside ?? aroundOutputs(body, nixpkgs, entry)
}

/** Whether the set already binds that attribute in a form that allows no second one, as `flake = let … in { … }`. */
const isTaken = ({ node, under = 'nixosConfigurations' }: Place): boolean =>
  bindingsOf(node).some((one) => {
    const names = one.childForFieldName('attrpath') ?? one.childForFieldName('attrs')
    const [first, ...others] = names ? parts(names) : []
    if (one.type !== 'binding') return [first, ...others].some((name) => name?.text === under)
    const value = one.childForFieldName('expression')
    return first?.text === under && others.length === 0 && value?.type !== 'attrset_expression'
  })

/** The value of `nixosConfigurations`, extended with the host. */
function besides(bound: Node, entry: (at: Node) => string): ByHand | undefined {
  const path = bound.parent!
  const owner = path.parent!
  const value = owner.childForFieldName('expression')
  if (!value || parts(path).at(-1)!.id !== bound.id) return undefined
  if (path.type === 'attrpath') {
    const after = `// { ${entry(value)} }`
    return {
      ...placeOf(bound),
      ...{ offset: value.startIndex, length: value.text.length, text: `(${value.text}) ${after}` },
      words: `: nixosConfigurations = … ${after};`,
    }
  }
  if (parts(path).length > 1) return undefined
  const from = /^(variable|select)_expression$/.test(value.type) ? value.text : `(${value.text})`
  const text = `nixosConfigurations = ${from}.nixosConfigurations // { ${entry(owner)} };`
  return {
    ...placeOf(bound),
    ...{ offset: owner.startIndex, length: owner.text.length, text },
    words: ` in place of what is inherited there: ${text}`,
  }
}

/** Where all outputs come from elsewhere, the host is added around the whole expression. */
function aroundOutputs(body: Node, nixpkgs: string, entry: (at: Node) => string): ByHand {
  if (body.type === 'source_code') {
    const flake = body.childForFieldName('expression')
    const open = flake?.type === 'attrset_expression' ? flake.children[0] : undefined
    const text = `outputs = { ${nixpkgs}, ... }: { nixosConfigurations.${entry(body)} };`
    if (open) {
      return {
        ...placeOf(open),
        ...{ offset: open.endIndex, length: 0, text: ` ${text}` },
        words: ` in the set that begins there: ${text}`,
      }
    }
    return {
      ...placeOf(flake ?? body),
      ...{ offset: flake?.startIndex ?? body.endIndex, length: flake?.text.length ?? 0 },
      ...{ text: `{ ${text} }\n`, words: `: a flake is a set, such as { ${text} }` },
    }
  }
  const after = `in made // { nixosConfigurations = made.nixosConfigurations or { } // { ${entry(body)} }; }`
  return {
    ...placeOf(body),
    ...{ offset: body.startIndex, length: body.text.length },
    text: `let made = (${body.text}); ${after}`,
    words: ` around what the outputs are: let made = …; ${after}`,
  }
}

/** Where a node is written: an absolute path, and a line that counts from 1. */
export const placeOf = (node: Node): { file: string; line: number } => ({
  file: sourceOf(node).path,
  line: lineOf(node),
})

/** Whether the set is what `nixosConfigurations` is bound to, so that an attribute of it is a host. */
function isDirect({ node, prefix }: Place, bound: Node | undefined): boolean {
  if (!node.type.endsWith('attrset_expression')) return false
  if (prefix.at(-1) === 'nixosConfigurations') return true
  const binding = bound?.parent?.type === 'attrpath' ? bound.parent.parent : undefined
  let value = binding?.childForFieldName('expression')
  while (value && value.id !== node.id) {
    value =
      value.type === 'with_expression' ||
      value.type === 'let_expression' ||
      value.type === 'assert_expression'
        ? value.childForFieldName('body')
        : value.type === 'parenthesized_expression'
          ? value.childForFieldName('expression')
          : undefined
  }
  return value !== undefined && value !== null
}

/** The path as Nix code in a file. */
function relativePath(file: string, to: string): string {
  const path = relative(dirname(file), to)
  const written = path.startsWith('.') ? path : `./${path}`
  return /^[\w.+/-]+$/.test(written) ? written : `(./. + ${nixString(`/${path}`)})`
}

/** The expression for `nixosSystem` at a node: as the file's other hosts call it, else by the names in scope. */
function systemFunction(at: Node, nixpkgs: string): string {
  const { root, path } = sourceOf(at)
  const scope = visible(at)
  const others = root
    .descendantsOfType('apply_expression')
    .map((one) => one.childForFieldName('function')!.text)
    // not one of the flake's own, such as `mylib.nixosSystem`, which may want other arguments
    .filter((text) => /^(?:(?:[\w.'-]+\.)?lib\.)?nixosSystem$/.test(text))
  const known = others.find((text) => scope.has(text.split('.')[0]!))
  if (known) return known
  const system = `${attributeName(nixpkgs)}.lib.nixosSystem`
  if (scope.has(nixpkgs)) return system
  const all = [...scope].find(([, kind]) => kind === 'inputs')?.[0]
  if (scope.has('inputs')) return `inputs.${system}`
  if (all) return `${all}${path.endsWith('/flake.nix') ? '' : '.inputs'}.${system}`
  if (scope.has('self')) return `self.inputs.${system}`
  return system
}

/** Whether nixpkgs is in scope: it is not in a module that is no function, or that takes only `config`. */
const reachesNixpkgs = (at: Node, nixpkgs: string): boolean =>
  visible(at).has(systemFunction(at, nixpkgs).split('.')[0]!)

/** The names in scope at a node, and whether a name holds all arguments of a function (`inputs`). */
function visible(at: Node): Map<string, 'name' | 'inputs'> {
  const names = new Map<string, 'name' | 'inputs'>()
  for (let node = at; node.parent; node = node.parent) {
    const { parent } = node
    if (parent.type === 'function_expression') {
      const whole = parent.childForFieldName('universal')
      if (whole) names.set(whole.text, 'inputs')
      for (const formal of parent.childForFieldName('formals')?.namedChildren ?? []) {
        const name = formal.childForFieldName('name')
        if (name) names.set(name.text, 'name')
      }
    } else if (parent.type === 'let_expression' || parent.type === 'rec_attrset_expression') {
      for (const one of bindingsOf(parent)) {
        const attrs = one.childForFieldName('attrpath') ?? one.childForFieldName('attrs')
        const all = attrs ? parts(attrs) : []
        for (const { text } of one.type === 'binding' ? all.slice(0, 1) : all)
          names.set(text, 'name')
      }
    }
  }
  return names
}
