import { createRequire } from 'node:module'
import { usage, type Failure } from './failure.ts'

/** Up to this many names are listed in a hint; more are left to the command that lists them. */
const few = 6

/**
 * The failure for an unknown name: it suggests the nearest known names and says how to list all.
 * @param what with its article: `a case`
 * @param lists the command that lists them, and any other advice
 */
export function unknown(what: string, name: string, known: string[], lists: string): Failure {
  return usage(`Cannot find ${what} \`${name}\``, `${suggest(name, known)}${lists}`)
}

/** `The nearest is x; `; if no name is near, all names when they are few, else nothing. */
export function suggest(name: string, known: string[]): string {
  const near = nearest(name, known)
  if (near.length === 1) return `The nearest is ${near[0]}; `
  if (near.length > 1) return `The nearest are ${near.join(', ')}; `
  return known.length > 0 && known.length <= few ? `There are ${known.join(', ')}; ` : ''
}

/** At most 4 names that may be meant, the nearest first: a few typing errors away, or one contains the other. */
export function nearest(name: string, known: string[]): string[] {
  // loaded only when a name was mistyped
  const { distance } = createRequire(import.meta.url)(
    'fastest-levenshtein',
  ) as typeof import('fastest-levenshtein')
  const wanted = name.toLowerCase()
  const slips = Math.max(1, Math.ceil(wanted.length / 3))
  const near = [...new Set(known)]
    .map((one) => ({ one, off: distance(wanted, one.toLowerCase()) }))
    .filter(
      ({ one, off }) =>
        off <= slips ||
        (wanted.length >= 3 && one.toLowerCase().includes(wanted)) ||
        (one.length >= 3 && wanted.includes(one.toLowerCase())),
    )
    .toSorted((a, b) => a.off - b.off)
  // if one name is a slip or two away, much more distant names are not meant
  const most = near[0] && near[0].off <= 2 ? near[0].off + 1 : Infinity
  return near
    .filter(({ off }) => off <= most)
    .slice(0, 4)
    .map(({ one }) => one)
}
