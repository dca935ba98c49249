import { Transform } from 'node:stream'

/**
 * Control sequences that query a terminal, which answers as if the user typed: the cursor's position and the
 * screen's size (DSR, window reports), the kind of terminal (ENQ, DECID, DA, XTVERSION, DECREQTPARM), its
 * modes, keys, colours and clipboard (DECRQM, kitty's keys, OSC, DECRQSS, XTGETTCAP).
 * From "XTerm Control Sequences" (invisible-island.net), and systemd's src/basic/terminal-util.c.
 */
// oxlint-disable no-control-regex -- control sequences are what is looked for
const query = new RegExp(
  [
    '\\u0005|\\u001bZ',
    '\\u001b\\[[?>=]?[\\d;]*(?:[nc]|\\$p)',
    '\\u001b\\[(?:1[13-9]|2[01])(?:;\\d+)?t',
    '\\u001b\\[(?:>[\\d;]*q|[01]?x|\\?u)',
    // a string ends with BEL or ST; an OSC is a query only with the value `?`
    '\\u001b\\][^\\u0007\\u001b]*;\\?(?:;[^\\u0007\\u001b]*)?(?:\\u0007|\\u001b\\\\)',
    '\\u001bP[$+]q[^\\u001b]*\\u001b\\\\',
    // answers to graphics queries
    '\\u001b_G[^\\u001b]*\\u001b\\\\',
  ].join('|'),
  'g',
)

/** A control sequence whose end has not arrived yet. One that is longer than any query does not count. */
const unfinished =
  /\u001b(?:\[[?>=]?[\d;]*\$?|\][^\u0007\u001b]{0,200}\u001b?|[P_][^\u001b]{0,200}\u001b?)?$/

/**
 * Removes the queries from the text of a guest's console. A terminal answers a query as if the user typed. When
 * the program that asked no longer listens, as when an old log is shown, the answer ends up in a login prompt.
 */
export const withoutQueries = (text: string): string => text.replace(query, '')

/** The same for a stream. All other bytes pass unchanged, in any encoding. */
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
