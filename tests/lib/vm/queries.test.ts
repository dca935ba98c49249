import { expect, test } from 'vitest'
import { queriesRemoved, withoutQueries } from '../../../lib/vm/queries.ts'

/** The queries that systemd 262 sends when it starts a getty on a serial line, up to the text that is kept. */
const getty =
  '\u001b[!p\u001b]104\u001b\\\u001b[0m\u001b[?7h\u001b[1G\u001b[0J\u001b7\u001b[32766;32766H\u001b[6n\u001b8\u001bP+q6E616D65\u001b\\\r\n'
const gettyShown =
  '\u001b[!p\u001b]104\u001b\\\u001b[0m\u001b[?7h\u001b[1G\u001b[0J\u001b7\u001b[32766;32766H\u001b8\r\n'

test.each([
  ['cursor position', '\u001b[6n'],
  ['status', '\u001b[5n'],
  ['extended cursor position', '\u001b[?6n'],
  ['device attributes', '\u001b[c'],
  ['device attributes, with a number', '\u001b[0c'],
  ['which version', '\u001b[>c'],
  ['which version, by name', '\u001b[>0q'],
  ['its unit id', '\u001b[=c'],
  ['as VT52 had it', '\u001bZ'],
  ['answerback', '\u0005'],
  ['size in characters', '\u001b[18t'],
  ['size in pixels', '\u001b[14;2t'],
  ['title', '\u001b[21t'],
  ['a mode', '\u001b[?2026$p'],
  ['parameters', '\u001b[x'],
  ["kitty's keys", '\u001b[?u'],
  ['background colour', '\u001b]11;?\u001b\\'],
  ['a colour of the palette', '\u001b]4;1;?\u0007'],
  ['clipboard', '\u001b]52;c;?\u0007'],
  ['a setting', '\u001bP$qm\u001b\\'],
  ['a capability', '\u001bP+q6E616D65\u001b\\'],
  ['graphics', '\u001b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\u001b\\'],
])('a terminal query is removed: %s', (_, query) => {
  expect(withoutQueries(`before${query}after`)).toBe('beforeafter')
})

test.each([
  ['colours', '\u001b[0;1;39mtext\u001b[0m'],
  ['cursor moves', '\u001b[2J\u001b[1;1H\u001b7\u001b8\u001b[32766;32766H'],
  ['modes', '\u001b[?25l\u001b[?1049h\u001b[!p'],
  ['a title', '\u001b]0;what? really?\u0007'],
  ['a hyperlink', '\u001b]8;;https://example.org/?a=b\u001b\\here\u001b]8;;\u001b\\'],
  ['a resize', '\u001b[8;24;80t'],
  ['a cursor shape', '\u001b[2 q'],
  ['text that looks like one', '[6n c Z'],
])('%s pass through unchanged', (_, text) => {
  expect(withoutQueries(text)).toBe(text)
})

test('a getty’s queries are removed wherever the stream is split', async () => {
  const bytes = Buffer.from(`ä€${getty}Debian\nlogin: `)
  for (let at = 0; at <= bytes.length; at++) {
    const filter = queriesRemoved()
    filter.write(bytes.subarray(0, at))
    filter.end(bytes.subarray(at))
    const shown = Buffer.concat(await filter.toArray())
    expect(shown.toString(), `cut at ${at}`).toBe(`ä€${gettyShown}Debian\nlogin: `)
  }
})

test('a prompt is shown at once, and an unterminated sequence is not held back for ever', async () => {
  const filter = queriesRemoved()
  filter.write('login: ')
  expect(String(filter.read())).toBe('login: ')
  filter.write(`\u001b]0;${'x'.repeat(300)}`)
  expect(String(filter.read())).toContain('xxx')
})
