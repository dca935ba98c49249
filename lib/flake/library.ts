import { existsSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { flakeHostsAt, givenHosts, givenSet, toldHosts } from './frameworks.ts'
import { isDirectory } from './paths.ts'
import type { Node } from './syntax.ts'
import {
  abridged,
  argument,
  asPath,
  asText,
  attribute,
  compared,
  concatenate,
  emptySet,
  gapsOf,
  ifListed,
  isListed,
} from './value.ts'
import { lazy, merge, mergeDeep, opaque, other, outside, truth, unknown } from './value.ts'
import type {
  Attr,
  Call,
  ListValue,
  Place,
  SetValue,
  TextValue,
  Thunk,
  Unknown,
  Value,
} from './value.ts'

/** The result of calling a function with an argument. */
export function call(value: Value, given: Thunk, at: Node): Value {
  if (value.is === 'function') return value.call(given)
  // an unknown function that was given a listing returned this
  if (isListed(value)) return value
  if (value.is !== 'unknown')
    return unknown(at, `\`${abridged(at)}\` calls something that is no function`)
  // a library made for one directory, such as snowfall's, has its own `mkFlake`
  const isOwn = value.name === 'mkFlake' && value.directory !== undefined
  const isKnown = !isOwn && Object.hasOwn(library, value.name ?? '')
  const known = isKnown ? library[value.name!] : undefined
  if (known) return curry(known, at)(given)
  const passed = given()
  if (isListed(passed)) return passed
  const all = [...(value.given ?? []), given]
  if (value.name === undefined) return { ...value, given: all }
  const data = /^(readFile|importJSON|importTOML)$/.test(value.name) ? asPath(passed) : undefined
  return {
    ...computed(at, value.directory ?? givenHosts(passed, at)),
    listed: value.listed ?? givenSet(passed),
    file: data ?? (passed.is === 'unknown' ? passed.file : undefined),
    given: all,
  }
}

const computed = (at: Node, directory?: string): Unknown => ({
  ...opaque(at, `the hosts are computed by \`${abridged(at)}\``),
  directory,
})

/** A function of Nix or nixpkgs: how many arguments it takes, and how to compute its result. */
export type LibraryFunction = [arity: number, run: (args: Thunk[], at: Node) => Value]

const curry =
  ([arity, run]: LibraryFunction, at: Node, before: Thunk[] = []): Call =>
  (given) => {
    const args = [...before, given]
    return args.length < arity
      ? { is: 'function', call: curry([arity, run], at, args) }
      : run(args, at)
  }

/** Runs on one kind of value; an unknown one passes through, because its place explains more. */
const on =
  <V extends SetValue | ListValue>(is: V['is']) =>
  (
    index: number,
    arity: number,
    run: (value: V, args: Thunk[], at: Node) => Value,
  ): LibraryFunction => [
    arity,
    (args, at) => {
      const value = args[index]!()
      if (value.is === is) return run(value as V, args, at)
      return value.is === 'unknown' ? value : other(at)
    },
  ]
const onSet = on<SetValue>('set')
const onList = on<ListValue>('list')

const call2 = (f: Thunk, a: Thunk, b: Thunk, at: Node): Value => call(call(f(), a, at), b, at)

const nameOf =
  ([name, { literals, listing }]: [string, Attr]): Thunk =>
  () => ({ ...asText(name, literals[0]), listing })

/** An empty set that is mapped over does not show what a new entry must look like, so it is no place for one. */
const mapped = (set: SetValue): Place[] => (set.attrs.size > 0 ? set.places : [])

const mapList = (list: ListValue, f: Thunk, at: Node): ListValue => ({
  ...list,
  items: list.items.map((item) => lazy(at, () => call(f(), item, at))),
})

const entries = (set: SetValue, f: Thunk, at: Node): ListValue => ({
  is: 'list',
  items: [...set.attrs].map((entry) => lazy(at, () => call2(f, nameOf(entry), entry[1].value, at))),
  places: mapped(set),
  gaps: set.gaps,
})

/** Maps a list with the number of each element, which is not followed. */
const numbered = onList(1, 2, (list, [f], at) => {
  const number = unknown(at, 'the hosts depend on their order')
  return mapList(list, () => call(f!(), () => number, at), at)
})

const namedValue = (name: Thunk, value: Thunk): SetValue => ({
  ...emptySet(),
  attrs: new Map(
    Object.entries({ name, value }).map(([key, of]) => [key, { value: of, literals: [] }]),
  ),
})

/** What a filter keeps; undefined where it keeps nothing, or is not known for each element. */
function kept<T>(all: T[], keep: (one: T) => Value): T[] | undefined {
  const asked = all.map((one) => ({ one, value: keep(one) }))
  const some = asked.filter(({ value }) => value.is === 'truth' && value.holds)
  const known = asked.every(({ value }) => value.is === 'truth')
  return known && some.length > 0 ? some.map(({ one }) => one) : undefined
}

const listOf = (items: Thunk[]): ListValue => ({ is: 'list', items, places: [], gaps: [] })

const joined = ({ items, gaps }: ListValue, at: Node): Value => {
  return concatenate([{ ...listOf([]), gaps }, ...items.map((item) => item())], at)
}

const flattened = (list: ListValue, at: Node): Value =>
  concatenate(
    [
      { ...list, items: [] },
      ...list.items.map((item): Value => {
        const one = item()
        if (one.is === 'list') return flattened(one, at)
        return one.is === 'unknown' ? one : listOf([item])
      }),
    ],
    at,
  )

const fold = (list: ListValue, at: Node, by = merge): Value =>
  list.items.reduce<Value>((sum, item) => by(sum, item(), at), {
    ...emptySet(),
    gaps: list.gaps,
  })

const foldLeft = onList(2, 3, ({ items }, [f, start], at) =>
  items.reduce((sum, item) => call2(f!, () => sum, item, at), start!()),
)

const foldRight = onList(2, 3, ({ items }, [f, start], at) =>
  items.reduceRight((sum, item) => call2(f!, item, () => sum, at), start!()),
)

/** A set with one name and value for each item. */
function pairs(
  list: ListValue,
  pair: (item: Thunk) => { name: Value; value: Thunk },
  at: Node,
): SetValue {
  const result: SetValue = { ...emptySet(list.places), gaps: [...list.gaps] }
  for (const { name, value } of list.items.map(pair)) {
    if (name.is === 'text') {
      const { literal, listing } = name
      result.attrs.set(name.text, { value, literals: literal ? [literal] : [], listing })
    } else result.gaps.push(name.is === 'unknown' ? name : unknown(at, 'a name is no string'))
  }
  return result
}

const listToAttrs = (list: ListValue, at: Node): SetValue =>
  pairs(
    list,
    (item) => ({
      name: attribute(item(), 'name', at),
      value: lazy(at, () => attribute(item(), 'value', at)),
    }),
    at,
  )

/**
 * The functions that make, keep or join names, known by their last name only: `lib.genAttrs` and
 * `inputs.nixpkgs.lib.attrsets.genAttrs` are the same.
 */
export const library: Record<string, LibraryFunction> = {
  attrNames: onSet(0, 1, (set) => ({
    is: 'list',
    items: [...set.attrs].map(nameOf),
    places: mapped(set),
    gaps: set.gaps,
  })),
  attrValues: onSet(0, 1, (set) => ({
    is: 'list',
    items: [...set.attrs.values()].map(({ value }) => value),
    places: [],
    gaps: set.gaps,
  })),
  attrsToList: onSet(0, 1, (set, _, at) => ({
    is: 'list',
    items: [...set.attrs].map((entry) => lazy(at, () => namedValue(nameOf(entry), entry[1].value))),
    places: mapped(set),
    gaps: set.gaps,
  })),
  concatLists: onList(0, 1, (list, _, at) => joined(list, at)),
  concatMap: onList(1, 2, (list, [f], at) => joined(mapList(list, f!, at), at)),
  concatMapAttrs: onSet(1, 2, (set, [f], at) => fold(entries(set, f!, at), at)),
  elem: onList(1, 2, ({ items, gaps }, [one], at) => {
    const asked = items.map((item) => compared(one!(), item(), at, (a, b) => a === b))
    const known = gaps.length === 0 && asked.every(({ is }) => is === 'truth')
    return known ? truth(asked.some((same) => same.is === 'truth' && same.holds)) : other(at)
  }),
  evalFlakeModule: [
    2,
    ([given, module], at) => {
      const flake: Attr = { value: () => flakeParts(module!(), at, given!()), literals: [] }
      return setOf({ config: { value: () => setOf({ flake }), literals: [] } })
    },
  ],
  // `lib.extend`: the overlay's additions are known; the rest is recognised by function names
  extend: [
    1,
    ([overlay], at) => {
      const rest = computed(at)
      const extended = lazy(at, () => {
        const added = call2(overlay!, extended, () => rest, at)
        return added.is === 'set' ? { ...added, places: [], gaps: [...added.gaps, rest] } : rest
      })
      return extended()
    },
  ],
  filter: [
    2,
    ([keep, list], at) => {
      const all = list!()
      if (all.is !== 'list') return ifListed(all, at)
      const items = kept(all.items, (item) => call(keep!(), item, at))
      return items ? { ...all, items } : ifListed(all, at)
    },
  ],
  filterAttrs: [
    2,
    ([keep, set], at) => {
      const all = set!()
      if (all.is !== 'set') return ifListed(all, at)
      const attrs = kept([...all.attrs], (entry) => call2(keep!, nameOf(entry), entry[1].value, at))
      return attrs ? { ...all, attrs: new Map(attrs) } : ifListed(all, at)
    },
  ],
  flatten: onList(0, 1, (list, _, at) => flattened(list, at)),
  flip: [3, ([f, a, b], at) => call2(f!, b!, a!, at)],
  fold: foldRight,
  foldl: foldLeft,
  "foldl'": foldLeft,
  foldlAttrs: onSet(2, 3, ({ attrs }, [f, start], at) =>
    [...attrs].reduce(
      (sum, entry) =>
        call(
          call2(f!, () => sum, nameOf(entry), at),
          entry[1].value,
          at,
        ),
      start!(),
    ),
  ),
  foldr: foldRight,
  forEach: onList(0, 2, (list, [, f], at) => mapList(list, f!, at)),
  genAttrs: onList(0, 2, (list, [, f], at) =>
    pairs(list, (item) => ({ name: item(), value: lazy(at, () => call(f!(), item, at)) }), at),
  ),
  "genAttrs'": onList(0, 2, (list, [, f], at) => listToAttrs(mapList(list, f!, at), at)),
  hasPrefix: [2, ([end, of], at) => compared(end!(), of!(), at, (a, b) => b.startsWith(a))],
  hasSuffix: [2, ([end, of], at) => compared(end!(), of!(), at, (a, b) => b.endsWith(a))],
  imap0: numbered,
  imap1: numbered,
  // flake-parts
  importApply: [2, ([path, given], at) => call(call(outside(at, 'import'), path!, at), given!, at)],
  // a module that imports every file of one or more directories, except those below a name that begins with `_`
  'import-tree': [
    1,
    ([path], at) => {
      const of = path!()
      const trees = (of.is === 'list' ? of.items.map((item) => item()) : [of]).map(asPath)
      if (trees.some((tree) => tree === undefined || !existsSync(tree)))
        return of.is === 'unknown' ? of : other(at)
      const files = trees
        .flatMap((tree) => nixFilesIn(tree!))
        .map((text): Thunk => () => ({ is: 'path', text }))
      const imports = (): Value => listOf(files)
      return { ...emptySet(), attrs: new Map([['imports', { value: imports, literals: [] }]]) }
    },
  ],
  listFilesRecursive: [1, ([path], at) => computed(at, asPath(path!()))],
  listToAttrs: onList(0, 1, (list, _, at) => listToAttrs(list, at)),
  // colmena
  makeHive: onSet(0, 1, (set) => {
    const attrs = new Map([...set.attrs].filter(([name]) => !/^(meta|defaults)$/.test(name)))
    return setOf({ nodes: { value: () => ({ ...set, attrs }), literals: [] } })
  }),
  map: onList(1, 2, (list, [f], at) => mapList(list, f!, at)),
  mapAttrs: onSet(1, 2, (set, [f], at) => ({
    ...set,
    attrs: new Map(
      [...set.attrs].map(([name, attr]) => {
        const value = lazy(at, () => call2(f!, nameOf([name, attr]), attr.value, at))
        return [name, { ...attr, value }]
      }),
    ),
    places: mapped(set),
  })),
  "mapAttrs'": onSet(1, 2, (set, [f], at) => listToAttrs(entries(set, f!, at), at)),
  mapAttrsToList: onSet(1, 2, (set, [f], at) => entries(set, f!, at)),
  mergeAttrsList: onList(0, 1, (list, _, at) => fold(list, at)),
  mkFlake: [
    1,
    ([of], at) => {
      const given = of!()
      // adios-flake takes one set, whose `flake` is that of a module
      if (given.is === 'set' && given.attrs.has('flake')) return flakeParts(given, at, given)
      // flake-utils-plus
      const hosts = given.is === 'set' ? given.attrs.get('hosts') : undefined
      if (hosts) return setOf({ nixosConfigurations: hosts })
      // other functions of that name take no `{ inherit inputs; }`, or take a directory too
      const loaded = given.is === 'set' && ['root', 'src'].some((name) => given.attrs.has(name))
      if (loaded) return computed(at, givenHosts(given, at))
      const ours = given.is === 'set' && given.attrs.has('inputs')
      return {
        is: 'function',
        call: (module) => (ours ? flakeParts(module(), at, given) : computed(at)),
      }
    },
  ],
  // the module system merges sets of the same name
  mkMerge: onList(0, 1, (list, _, at) => fold(list, at, mergeDeep)),
  nameValuePair: [2, ([name, value]) => namedValue(name!, value!)],
  optional: [2, ([, item], at) => ifListed(listOf([item!]), at)],
  optionalAttrs: [2, ([, set], at) => ifListed(set!(), at)],
  optionals: [2, ([, list], at) => ifListed(list!(), at)],
  pipe: onList(1, 2, ({ items }, [start], at) =>
    items.reduce((value, step) => call(step(), () => value, at), start!()),
  ),
  readDir: [
    1,
    ([path], at) => {
      const of = path!()
      const directory = of.is === 'path' && of.listing ? ofPlatform(of) : asPath(of)
      if (directory === undefined) return of.is === 'unknown' ? of : other(at)
      const set = emptySet()
      const value = (): Value => unknown(at, 'the hosts depend on what is in a directory')
      set.attrs.set(`${directory}/*`, { value, literals: [], listing: { node: at, directory } })
      return set
    },
  ],
  recursiveUpdate: [2, ([left, right], at) => mergeDeep(left!(), right!(), at)],
  removeAttrs: onSet(0, 2, (set, [, names], at) => {
    // a name to remove that is not known may be any
    const list = names!()
    const all = list.is === 'list' ? list.items.map((item) => item()) : [list]
    const known = all.flatMap((one) => (one.is === 'text' ? [one.text] : []))
    const gaps = gapsOf([list, ...all])
    const attrs = new Map([...set.attrs].filter(([name]) => !known.includes(name)))
    return gaps.length > 0 && !isListed(set) ? other(at) : { ...set, attrs }
  }),
  unique: onList(0, 1, (list) => list),
}

const setOf = (attrs: Record<string, Attr>): SetValue => ({
  ...emptySet(),
  attrs: new Map(Object.entries(attrs)),
})

const nixFilesIn = (tree: string): string[] =>
  isDirectory(tree)
    ? readdirSync(tree, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.nix') && !`/${name}`.includes('/_'))
        .toSorted()
        .map((name) => join(tree, name))
    : [tree]

/** The actual paths for a path that contains a listed directory's names as `*`. */
function listed({ text, listing }: TextValue): string[] {
  const { directory } = listing!
  // in `./${name}` the directory has lost its first slash
  const names = `${directory.slice(1)}/*`
  const all = existsSync(directory) ? readdirSync(directory) : []
  return all.toSorted().map((name) => text.replace(names, () => name))
}

/** In a listed directory such as `systems`, the subdirectory of the lab's platform, or the only one. */
function ofPlatform(path: TextValue): string | undefined {
  const all = listed(path).filter(isDirectory)
  return (
    all.find((one) => /^x86_64-(linux|nixos)$/.test(basename(one))) ??
    all.find((one) => basename(one).startsWith('x86_64-')) ??
    (all.length === 1 ? all[0] : undefined)
  )
}

/**
 * flake-parts and the like: the `flake` of a module, merged with that of the modules it imports by path.
 * @param given the set from which the modules get `inputs` and `self`
 */
function flakeParts(top: Value, at: Node, given: Value): Value {
  const found = emptySet()
  const configs: Value[] = []
  const strangers: Unknown[] = []
  const seen = new Set<string>()
  const whole: Attr = { value: () => found, literals: [] }
  const handed: SetValue = {
    ...setOf({
      config: { value: () => ({ ...setOf({ flake: whole }), gaps: [argument(at)] }), literals: [] },
    }),
    gaps: [argument(at)],
  }
  const inputs = given.is === 'set' ? given.attrs.get('inputs') : undefined
  if (inputs) {
    const self: Attr = { value: () => attribute(inputs.value(), 'self', at), literals: [] }
    handed.attrs.set('inputs', inputs).set('self', self)
  }
  const add = (one: Value): void => {
    if (one.is === 'path' && one.listing) {
      // the flake filters out other entries in ways that are not known here
      return listed(one)
        .filter((path) => existsSync(path.endsWith('.nix') ? path : join(path, 'default.nix')))
        .forEach((path) => add({ is: 'path', text: path }))
    }
    if (one.is === 'path' && seen.has(one.text)) return
    if (one.is === 'path') seen.add(one.text)
    const file = one.is === 'path' ? call(outside(at, 'import'), () => one, at) : one
    const module = file.is === 'function' ? file.call(() => handed) : file
    if (module.is !== 'set') {
      found.gaps.push(...gapsOf([module]))
      return
    }
    found.places.push(...module.places.map((place) => ({ ...place, under: 'flake' })))
    const config = module.attrs.get('config')?.value() ?? module
    configs.push(config)
    const own = config.is === 'set' ? config.attrs.get('flake')?.value() : config
    const flake = own?.is === 'function' ? own.call(() => handed) : own
    found.gaps.push(...gapsOf(flake ? [flake] : []))
    for (const [name, attr] of flake?.is === 'set' ? flake.attrs : []) {
      const before = found.attrs.get(name)
      const value = lazy(at, () =>
        before ? mergeDeep(before.value(), attr.value(), at) : attr.value(),
      )
      found.attrs.set(name, { value, literals: [...(before?.literals ?? []), ...attr.literals] })
    }
    const imports = module.attrs.get('imports')?.value()
    strangers.push(...gapsOf(imports ? [imports] : []))
    for (const item of imports?.is === 'list' ? imports.items : []) {
      const next = item()
      if (next.is === 'unknown') strangers.push(next)
      else add(next)
    }
  }
  add(top)
  // a framework's options may be set in another module than the one that imports it
  const options = configs.reduce((left, right) => mergeDeep(left, right, at), emptySet())
  const { told, directory, listed: set } = toldHosts(options)
  for (const stranger of strangers) {
    // its module makes hosts of what its options name, or of its customary directory
    const where = {
      told,
      directory: told ? directory : (directory ?? flakeHostsAt(at)),
      listed: set,
    }
    found.gaps.push(stranger.name === undefined ? stranger : { ...stranger, ...where })
  }
  return found
}
