import type { WriteStream } from 'node:tty'
import stringWidth from 'string-width'

/** The part of a terminal that is drawn again and again, below what was there. */
export interface Screen {
  columns: () => number
  rows: () => number
  /** Puts these lines in place of the ones before. */
  draw: (lines: string[]) => void
  /** What is drawn stays where it is, and the next drawing goes below it. */
  leave: () => void
}

const clear = { line: '\u001b[K', down: '\u001b[J' }

/**
 * Draws with nothing but a way up and an erase: cursor, echo and scrolling stay as the person has them,
 * so there is nothing to be restored, not even after a kill -9. The cursor rests below what is drawn.
 */
export function screenOf(terminal: WriteStream): Screen {
  let drawn: number[] = []
  // a pseudo terminal that nobody gave a size says 0
  const columns = (): number => terminal.columns || 80
  const rows = (): number => terminal.rows || 24
  const leave = (): void => {
    drawn = []
  }
  return {
    columns,
    rows,
    draw: (lines) => {
      // a window that became narrower has wrapped what is on it
      const high = drawn.reduce((sum, width) => sum + Math.max(1, Math.ceil(width / columns())), 0)
      const up = Math.min(high, rows() - 1)
      drawn = lines.map((line) => stringWidth(line))
      const back = up > 0 ? `\r\u001b[${up}A` : '\r'
      // line by line: of a screen that is cleared as a whole, tmux keeps what was on it in its history
      const over = lines.map((line) => `${clear.line}${line}\n`).join('')
      terminal.write(`${back}${over}${clear.down}`)
    },
    leave,
  }
}
