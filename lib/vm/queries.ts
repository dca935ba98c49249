import { Transform } from 'node:stream'

/**
 * What a program asks a terminal for, to be answered as if it was typed: where the cursor is and how large
 * the screen (DSR, window reports), what kind of terminal it is (ENQ, DECID, DA, XTVERSION, DECREQTPARM),
 * what modes, keys, colours and clipboard it has (DECRQM, kitty's keys, OSC, DECRQSS, XTGETTCAP).
 * From "XTerm Control Sequences" (invisible-island.net), and systemd's src/basic/terminal-util.c.
 */
// oxlint-disable no-control-regex -- control sequences are what is looked for
const query = new RegExp(
  [
    '\\u0005|\\u001bZ',
    '\\u001b\\[[?>=]?[\\d;]*(?:[nc]|\\$p)',
    '\\u001b\\[(?:1[13-9]|2[01])(?:;\\d+)?t',
    '\\u001b\\[(?:>[\\d;]*q|[01]?x|\\?u)',
    // a string ends with BEL or ST; of OSC only those with a value `?`
    '\\u001b\\][^\\u0007\\u001b]*;\\?(?:;[^\\u0007\\u001b]*)?(?:\\u0007|\\u001b\\\\)',
    '\\u001bP[$+]q[^\\u001b]*\\u001b\\\\',
    // answers to graphics queries
    '\\u001b_G[^\\u001b]*\\u001b\\\\',
  ].join('|'),
  'g',
)

/** A control sequence whose end has not come yet; one that is longer than any query is none. */
const unfinished =
  /\u001b(?:\[[?>=]?[\d;]*\$?|\][^\u0007\u001b]{0,200}\u001b?|[P_][^\u001b]{0,200}\u001b?)?$/

/**
 * Text of a guest's console without its queries. A terminal answers them by typing, and what comes after
 * the one who asked has stopped listening, as when an old log is shown, ends up in a login prompt.
 */
export const withoutQueries = (text: string): string => text.replace(query, '')

/** The same for what comes in pieces. Bytes go through as they are, in whatever encoding. */
export function queriesRemoved(): Transform {
  let rest = ''
  return new Transform({
    transform(chunk: Buffer, _, done) {
      const text = rest + chunk.toString('latin1')
      const whole = withoutQueries(text)
      rest = unfinished.exec(whole)?.[0] ?? ''
      done(null, Buffer.from(whole.slice(0, whole.length - rest.length), 'latin1'))
    },
    flush(done) {
      done(null, Buffer.from(rest, 'latin1'))
    },
  })
}
