import { describe, expect, test } from 'vitest'
import { expression, findNixOS, hosts, lab, text } from './evaluate.ts'

type Path = string[]

/** Intended differences: a path or its beginning, and the reason. */
const exceptions: Record<string, string> = {
  assertions: 'the message of one that holds may not evaluate',
  fileSystems: 'disko lays out the disk on NixOS, so the by-label entries lose there',
  'myModules.services.autoUpgrade.attribute': 'each guest is another output of the flake',
}
const excepted = (path: Path): boolean =>
  Object.keys(exceptions).some((one) => `${path.join('.')}.`.startsWith(`${one}.`))

/** Top-level names whose options these modules declare: NixOS adds nothing to lists there. */
const ours = ['disks', 'hostSpec', 'modules', 'myModules', 'roles']

describe.each(hosts)('%s', (host) => {
  test('has the same values in both guests for everything that its files set', async (context) => {
    const paths = await expression<Path[]>(`import ${import.meta.dirname}/paths.nix lab "${host}"`)
    const compared = paths.filter((path) => !excepted(path))
    expect(compared.length).toBeGreaterThan(80)

    const apply = `(${text('values.nix')}) (builtins.fromJSON ${nixString(JSON.stringify(compared))})`
    const embedded = await lab<unknown[]>(host, apply)
    const found = await findNixOS()
    if ('missing' in found) return context.skip(found.missing)
    const real = await found.nixos<unknown[]>(host, apply)
    expect(differences(compared, embedded, real)).toEqual([])
  }, 300_000)
})

describe('The comparison', () => {
  const path = [['services', 'x']]

  test('sees a value that differs or is missing', () => {
    expect(differences(path, [1], [2])).toEqual(['services.x: lab 1, NixOS 2'])
    expect(differences(path, [true], [null])).toEqual(['services.x: lab true, NixOS null'])
    expect(differences(path, [null], [null])).toEqual([])
    expect(differences(path, ['<missing>'], ['<missing>'])).toHaveLength(1)
  })

  test('lets NixOS add to its own lists and to nothing else', () => {
    expect(differences(path, [['a', 'b']], [['a', 'x', 'b']])).toEqual([])
    expect(differences(path, [['a', 'b']], [['b', 'a']])).toHaveLength(1)
    expect(differences([['modules', 'x']], [['a']], [['a', 'b']])).toHaveLength(1)
  })

  test('ignores the location of a store path', () => {
    const [here, there] = ['a', 'b'].map((c) => `/nix/store/${c.repeat(32)}-agent/bin/agent`)
    expect(differences(path, [here], [there])).toEqual([])
  })
})

function differences(paths: Path[], embedded: unknown[], real: unknown[]): string[] {
  return paths.flatMap((path, i) => {
    const [a, b] = [withoutStore(embedded[i]), withoutStore(real[i])]
    const same =
      Array.isArray(a) && Array.isArray(b) && !ours.includes(path[0]!)
        ? isSubsequence(a, b)
        : JSON.stringify(a) === JSON.stringify(b)
    if (same && a !== '<missing>') return []
    return [`${path.join('.')}: lab ${JSON.stringify(a)}, NixOS ${JSON.stringify(b)}`]
  })
}

const withoutStore = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value).replaceAll(/\/nix\/store\/[0-9a-z]{32}-/g, ''))

function isSubsequence(short: unknown[], long: unknown[]): boolean {
  const rest = long.map((one) => JSON.stringify(one))
  return short.every((one) => {
    const at = rest.indexOf(JSON.stringify(one))
    return at >= 0 && rest.splice(0, at + 1).length > 0
  })
}

/** A Nix string literal. */
const nixString = (value: string): string =>
  `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('${', '\\${')}"`
