import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Failure, usage } from '../failure.ts'
import { byHand, placeOf } from './by-hand.ts'
import { customaryFile } from './frameworks.ts'
import { call } from './library.ts'
import { pasted } from '../quote.ts'
import { listingFile, type OwnFiles } from './own-files.ts'
import { attributeName, bindingsOf, isMarked, sourceOf } from './syntax.ts'
import type { Node, ReadNix } from './syntax.ts'
import { evaluate } from './trace.ts'
import { argument, attribute, emptySet, unknown } from './value.ts'
import type { Outline, SetValue, Unknown, Value } from './value.ts'

/**
 * Follows what a flake's `nixosConfigurations` evaluates to.
 * @param file its `flake.nix`
 */
export function outline(file: string, open: ReadNix): Outline {
  const { root, broken } = open(file)
  if (broken) {
    const fault = { ...unknown(broken, 'there is a syntax error'), fault: 'syntax' } as const
    return { hosts: fault, body: root, nixpkgs: 'nixpkgs' }
  }
  const flake = evaluate(root)
  const written = (flake.is === 'set' && flake.attrs.get('outputs')?.literals[0]) || root
  const outputs = attribute(flake, 'outputs', written)
  const nixpkgs = nixpkgsOf(flake)
  const body = (outputs.is === 'function' && outputs.lambda?.childForFieldName('body')) || root
  let made: Value = argument(written)
  const outPath = { value: (): Value => ({ is: 'path', text: dirname(file) }), literals: [] }
  // while the outputs are computed, `self` knows nothing of them
  const self = (): Value => {
    const of = made.is === 'set' ? made : { ...emptySet(), gaps: [argument(written)] }
    const attrs = new Map(of.attrs)
    attrs.set('inputs', { value: () => inputs, literals: [] })
    return {
      ...of,
      attrs: attrs.set('outputs', { value: self, literals: [] }).set('outPath', outPath),
    }
  }
  const inputs: SetValue = {
    ...emptySet(),
    attrs: new Map([['self', { value: self, literals: [] }]]),
    gaps: [made],
  }
  made = outputs.is === 'function' ? call(outputs, () => inputs, written) : outputs
  if (made.is === 'function') {
    const why = 'the outputs come from a function that is not known here'
    return { hosts: unknown(written, why), body, nixpkgs }
  }
  if (made.is !== 'set')
    return { hosts: made.is === 'unknown' ? made : argument(written), body, nixpkgs }
  const attr = made.attrs.get('nixosConfigurations')
  const [gap] = attr ? [] : made.gaps
  const sets = made.places.filter(({ node }) => node.type.endsWith('attrset_expression'))
  // an empty set is most likely the start value of a fold in a library
  const place = sets.find(({ node }) => bindingsOf(node).length > 0) ?? sets[0]
  const where = { bound: attr?.literals[0], outputs: place, body, nixpkgs }
  if (!attr && !gap) {
    const absent = attribute(made, 'nixosConfigurations', place?.node ?? written) as Unknown
    return { hosts: absent, ...where }
  }
  const hosts = gap ?? attr!.value()
  if (hosts.is === 'set' || hosts.is === 'unknown') return { hosts, ...where }
  const node = where.bound ?? written
  return { hosts: unknown(node, '`nixosConfigurations` is no attribute set'), ...where }
}

/** The name of the input that is nixpkgs: `nixpkgs` itself, else the one with such a URL. */
function nixpkgsOf(flake: Value): string {
  const inputs = flake.is === 'set' ? flake.attrs.get('inputs')?.value() : undefined
  const named = inputs?.is === 'set' ? [...inputs.attrs] : []
  const isNixpkgs = (input: Value): boolean => {
    const url = input.is === 'set' ? input.attrs.get('url')?.value() : undefined
    return url?.is === 'text' && /^(nixpkgs|.*\/nixpkgs)(\/|$|\?)/i.test(url.text)
  }
  if (named.some(([name]) => name === 'nixpkgs')) return 'nixpkgs'
  return named.find(([, { value }]) => isNixpkgs(value()))?.[0] ?? 'nixpkgs'
}

/** Why a flake has no form that can be edited, and at which node. */
export type Why = Omit<Unknown, 'is'>

/**
 * The failure for a flake whose form cannot be edited: where, why, and what to write by hand.
 * @param own where scaffold-host writes the host's files
 * @param flake absolute path of its directory
 */
export function refusal(
  name: string,
  why: Why,
  of: Outline,
  own: OwnFiles,
  flake: string,
): Failure {
  if (why.fault === 'syntax') return notParsed(why.node)
  const { file, line } = placeOf(why.node)
  return usage(
    `Cannot add \`${name}\` to \`${file}\` at line ${line}: ${why.why}`,
    elsewhere(name, why, flake) ?? handHint(name, of, own.path, { file, line }),
  )
}

/** A hint on where the hosts most likely come from, if the source could not be followed there. */
function elsewhere(
  name: string,
  { why, listed, directory, told, file }: Why,
  flake: string,
): string | undefined {
  if (file !== undefined)
    return `Its hosts are in \`${file}\`: write \`${name}\` there, like the others`
  const place = listed?.places[0]
  if (listed && place) {
    const [other] = listed.attrs.keys()
    const at = placeOf(place.node)
    const key = [...place.prefix, name].map(attributeName).join('.')
    const written = place.node.type === 'list_expression' ? name : `${key} = …;`
    return `Its hosts are most likely those in \`${listed.path}\` at line ${at.line} of \`${at.file}\`: write \`${written}\` there${other === undefined ? '' : `, like \`${other}\``}`
  }
  const list = directory === undefined ? undefined : listingFile(flake, directory, name)
  if (list) {
    return `Its hosts are listed in \`${list.file}\`: write \`${name}\` there as well, like \`${list.like}\` at line ${list.line}`
  }
  const like = directory === undefined ? undefined : anEntryOf(directory, name)
  if (like || (told && directory !== undefined)) {
    const alike = like ? `, like \`${like.name}\`` : ''
    return `Its hosts are most likely what is in \`${directory}\`: write \`${name}${like?.suffix ?? ''}\` there${alike}`
  }
  const option = /`config\.([\w.'-]+)`$/.exec(why)?.[1]
  return option === undefined
    ? undefined
    : `Write it by hand where the others are in \`${option}\`: ${option}.${attributeName(name)} = …`
}

function handHint(
  name: string,
  of: Outline,
  own: string,
  said: { file: string; line: number },
): string {
  const { file, line, words } = byHand(of, name, own)
  const at =
    file !== said.file
      ? ` at line ${line} of \`${file}\``
      : line !== said.line
        ? ` at line ${line}`
        : ''
  return `Write it by hand${at}${words}`
}

/** An entry of a directory to serve as an example, other than the host itself: a directory, else a file with suffix. */
function anEntryOf(directory: string, but: string): { name: string; suffix: string } | undefined {
  if (!existsSync(directory)) return undefined
  const all = readdirSync(directory, { withFileTypes: true }).filter(
    ({ name }) => !name.startsWith('.') && name !== but && name !== `${but}.nix`,
  )
  const first = (entries: typeof all): string | undefined =>
    entries.map(({ name }) => name).toSorted()[0]
  const inner = all.filter((entry) => entry.isDirectory())
  // not a host of another platform, which may have a `darwin-configuration.nix`
  const usual = inner.filter(({ name }) =>
    [customaryFile(directory), 'default.nix'].some((file) =>
      existsSync(join(directory, name, file)),
    ),
  )
  const inside = first(usual) ?? first(inner)
  if (inside !== undefined) return { name: inside, suffix: '' }
  const file = first(all.filter(({ name }) => name.endsWith('.nix') && name !== 'default.nix'))
  return file === undefined ? undefined : { name: file, suffix: '.nix' }
}

function notParsed(node: Node): Failure {
  const { file, line } = placeOf(node)
  if (isMarked(sourceOf(node).text)) {
    return usage(
      `Cannot parse \`${file}\`: it begins with a byte order mark, which nix rejects as a syntax error`,
      `Save it as UTF-8 without one: ${pasted('sed', '-i', '1s/^\\xEF\\xBB\\xBF//', file)}`,
    )
  }
  return usage(
    `Cannot parse \`${file}\`: syntax error at line ${line}`,
    `${pasted('nix-instantiate', '--parse', file)} says what is wrong`,
  )
}
