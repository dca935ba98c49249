import { readdirSync } from 'node:fs'
import { type Failure, usage } from '../failure.ts'
import { call } from './library.ts'
import { attributeName, firstError, lineOf, sourceOf } from './syntax.ts'
import type { Node, ReadNix } from './syntax.ts'
import { evaluate } from './trace.ts'
import { argument, attribute, unknown } from './value.ts'
import type { SetValue, Unknown, Value } from './value.ts'

/**
 * What a flake's `nixosConfigurations` evaluates to, as far as its source shows it.
 * @param file its `flake.nix`
 * @throws Failure (usage) at a syntax error
 */
export function flakeHosts(file: string, open: ReadNix): SetValue | Unknown {
  const { root } = open(file)
  const broken = firstError(root)
  if (broken) throw notParsed(broken)
  const flake = evaluate(root)
  const written = (flake.is === 'set' && flake.attrs.get('outputs')?.literals[0]) || root
  const outputs = attribute(flake, 'outputs', written)
  let made: Value = argument(written)
  const self = { value: () => (made.is === 'set' ? withInputs(made) : made), literals: [] }
  const inputs: SetValue = { is: 'set', attrs: new Map([['self', self]]), places: [], gaps: [made] }
  const withInputs = (of: SetValue): SetValue => ({
    ...of,
    attrs: new Map([...of.attrs, ['inputs', { value: () => inputs, literals: [] }]]),
  })
  made = outputs.is === 'function' ? call(outputs, () => inputs, written) : outputs
  if (made.is === 'function') {
    return unknown(written, 'the outputs come from a function that is not known here')
  }
  if (made.is === 'unknown') return made
  const [gap] = made.is === 'set' && !made.attrs.has('nixosConfigurations') ? made.gaps : []
  const hosts = gap ?? attribute(made, 'nixosConfigurations', written)
  if (hosts.is === 'set' || hosts.is === 'unknown') return hosts
  return unknown(written, '`nixosConfigurations` is no attribute set')
}

/** Where a node is written: an absolute path, and a line that counts from 1. */
export const placeOf = (node: Node): { file: string; line: number } => ({
  file: sourceOf(node).path,
  line: lineOf(node),
})

/**
 * The failure for a flake of no form that can be edited: where, why, and what to write by hand.
 * @param beside whether the host can be written at that very place
 */
export function refusal(
  name: string,
  { node, why, fault, directory }: Omit<Unknown, 'is'>,
  beside = false,
): Failure {
  if (fault === 'syntax') return notParsed(node)
  const { file, line } = placeOf(node)
  const entry = `${attributeName(name)} = nixpkgs.lib.nixosSystem { modules = [ ./hosts/${name} ]; };`
  const absent = fault === 'absent' ? `nixosConfigurations.${entry}` : undefined
  const like = directory === undefined ? undefined : anEntryOf(directory)
  const option = /`config\.([\w.'-]+)`$/.exec(why)?.[1]
  return usage(
    `Cannot add \`${name}\` to \`${file}\` at line ${line}: ${why}`,
    like
      ? `Its hosts are most likely what is in \`${directory}\`: write \`${name}${like.suffix}\` there, like \`${like.name}\``
      : option
        ? `Write it by hand where the others are in \`${option}\`: ${option}.${attributeName(name)} = …`
        : `Write it by hand, such as: ${beside ? entry : (absent ?? `nixosConfigurations = … // { ${entry} };`)}`,
  )
}

/** An entry of a directory to look at: another directory, else another file, whose name has a suffix. */
function anEntryOf(directory: string): { name: string; suffix: string } | undefined {
  const all = readdirSync(directory, { withFileTypes: true }).filter(
    ({ name }) => !name.startsWith('.'),
  )
  const first = (entries: typeof all): string | undefined =>
    entries.map(({ name }) => name).toSorted()[0]
  const inside = first(all.filter((entry) => entry.isDirectory()))
  if (inside !== undefined) return { name: inside, suffix: '' }
  const file = first(all.filter(({ name }) => name.endsWith('.nix') && name !== 'default.nix'))
  return file === undefined ? undefined : { name: file, suffix: '.nix' }
}

function notParsed(node: Node): Failure {
  const { file, line } = placeOf(node)
  return usage(`Cannot parse \`${file}\`: syntax error at line ${line}`)
}
