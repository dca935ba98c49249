import { usage } from '../failure.ts'

/** A part of a run, the `index`-th of `count`, counted from 1. */
export interface Shard {
  index: number
  count: number
}

export const shardName = ({ index, count }: Shard): string => `${index}/${count}`

/** The last line of a part's run: what to do with its record. */
export const partEnded = (shard: Shard, dir: string): string =>
  `part ${shardName(shard)}: just merge-runs ${dir} and those of the other parts`

/** @param text such as `2/4` @throws Failure (usage) */
export function readShard(text: string | undefined): Shard | undefined {
  if (text === undefined) return undefined
  const [, index, count] = (/^(\d{1,4})\/(\d{1,4})$/.exec(text) ?? []).map(Number)
  if (index && count && index <= count) return { index, count }
  throw usage(
    `Cannot read \`${text}\` as a part of a run`,
    'Write --shard 2/4 for the second of four parts',
  )
}

/**
 * Distributes things so that all bins take about as long: the longest first, each to the bin with the least
 * to do so far. The same things give the same bins everywhere; in a bin they keep their order.
 * @param seconds how long one thing takes
 */
export function deal<T>(things: T[], bins: number, seconds: (thing: T) => number): T[][] {
  const load = Array.from({ length: bins }, () => 0)
  const bin = new Map<T, number>()
  for (const thing of things.toSorted((a, b) => seconds(b) - seconds(a))) {
    const least = load.indexOf(Math.min(...load))
    bin.set(thing, least)
    load[least]! += seconds(thing)
  }
  return load.map((_, index) => things.filter((thing) => bin.get(thing) === index))
}

/**
 * The things that a part has to do; without a part, all of them.
 * @param seconds how long one thing takes; the figures must be the same in every part
 * @param what the noun for one thing
 * @throws Failure (usage) if there are more parts than things to do
 */
export function partOf<T>(
  things: T[],
  shard: Shard | undefined,
  seconds: (thing: T) => number,
  what: 'case' | 'control' = 'case',
): T[] {
  if (!shard) return things
  if (shard.count > things.length) {
    throw usage(
      `Cannot make ${shard.count} parts of ${things.length} ${what}${things.length === 1 ? '' : 's'}`,
      `A part without a ${what} would prove nothing: ask for fewer parts`,
    )
  }
  return deal(things, shard.count, seconds)[shard.index - 1]!
}
