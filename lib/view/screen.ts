import type { WriteStream } from 'node:tty'
import stringWidth from 'string-width'

/** The part of a terminal that is redrawn, below earlier output. */
export interface Screen {
  columns: () => number
  rows: () => number
  /** Replaces the lines drawn before by these. */
  draw: (lines: string[]) => void
  /** Leaves the drawn lines where they are; the next ones go below them. */
  leave: () => void
}

const clear = { line: '\u001b[K', down: '\u001b[J' }

/**
 * Draws only by moving the cursor up and erasing: cursor, echo and scrolling keep the user's settings, so
 * there is nothing to restore, not even after a kill -9. The cursor rests below the drawn lines.
 */
export function screenOf(terminal: WriteStream): Screen {
  let drawn: number[] = []
  // a pseudo terminal without a size reports 0
  const columns = (): number => terminal.columns || 80
  const rows = (): number => terminal.rows || 24
  const leave = (): void => {
    drawn = []
  }
  return {
    columns,
    rows,
    draw: (lines) => {
      // a window that became narrower has wrapped its lines
      const high = drawn.reduce((sum, width) => sum + Math.max(1, Math.ceil(width / columns())), 0)
      const up = Math.min(high, rows() - 1)
      drawn = lines.map((line) => stringWidth(line))
      const back = up > 0 ? `\r\u001b[${up}A` : '\r'
      // line by line: if a screen is cleared as a whole, tmux saves its content to the history
      const over = lines.map((line) => `${clear.line}${line}\n`).join('')
      terminal.write(`${back}${over}${clear.down}`)
    },
    leave,
  }
}
