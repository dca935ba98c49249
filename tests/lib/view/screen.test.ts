import { expect, test } from 'vitest'
import type { WriteStream } from 'node:tty'
import { screenOf } from '../../../lib/view/screen.ts'

test('a redraw does not clear from its first line, because tmux would keep a copy in its history', () => {
  const written: string[] = []
  const write = (text: string): boolean => written.push(text) > 0
  const screen = screenOf({ columns: 40, rows: 3, write } as unknown as WriteStream)
  screen.draw(['one', 'two'])
  screen.draw(['three'])
  expect(written).toEqual([
    '\r\u001b[Kone\n\u001b[Ktwo\n\u001b[J',
    '\r\u001b[2A\u001b[Kthree\n\u001b[J',
  ])
})
