import type { WriteStream } from 'node:tty'
import { figures } from 'listr2'
import { whenCutShort } from '../interrupt.ts'
import { colourOn } from '../table.ts'
import { frame, type FrameOptions } from './frame.ts'
import { screenOf } from './screen.ts'
import type { SeenLane } from './seen.ts'

/** The live display of running lanes. */
export interface Live {
  begin: () => void
  /** Something has changed since the last frame. */
  changed: () => void
  /** Draws the last frame, which stays. */
  end: () => void
}

/** Least and most milliseconds between two frames. */
const pace = { least: 100, most: 1000 }

/** Redraws the lanes in a terminal until `end`. */
export function liveView(
  terminal: WriteStream,
  lanes: SeenLane[],
  options: Pick<FrameOptions, 'folded' | 'reasonsFollow'>,
): Live {
  const screen = screenOf(terminal)
  const paint = colourOn(terminal)
  const marks = {
    done: paint(32)(figures.tick),
    failed: paint(31)(figures.cross),
    skipped: paint(33)(figures.arrowDown),
    atWork: paint(36)(figures.pointer),
    dim: paint(2),
  }
  let last = 0
  let next: NodeJS.Timeout | undefined
  let soon = false
  let over = false
  let forget = (): void => {}

  const draw = (ended: boolean): void => {
    if (over) return
    over = ended
    clearTimeout(next)
    next = ended ? undefined : setTimeout(again, pace.most)
    soon = false
    last = performance.now()
    const [columns, rows] = [screen.columns(), screen.rows()]
    screen.draw(frame(lanes, { ...options, columns, rows, now: last, ended, marks }))
  }
  const again = (): void => draw(false)
  const end = (): void => {
    forget()
    draw(true)
  }

  return {
    begin: () => {
      terminal.on('resize', again)
      // after a stop (Ctrl-Z) the shell has written below the frame
      process.on('SIGCONT', screen.leave)
      const keep = whenCutShort(end)
      forget = () => {
        keep()
        terminal.off('resize', again)
        process.off('SIGCONT', screen.leave)
      }
      again()
    },
    changed: () => {
      if (soon || over) return
      soon = true
      clearTimeout(next)
      next = setTimeout(again, Math.max(0, last + pace.least - performance.now()))
    },
    end,
  }
}
