import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { follow } from '../../../lib/vm/follow.ts'
import { pause, waitFor } from '../../../lib/retry.ts'

const until = (lines: string[], count: number): Promise<boolean> =>
  waitFor(`${count} lines`, 20, () => lines.length >= count, { every: 0.02 })

describe('follow', () => {
  let dir: string
  let log: string
  const stops: (() => void)[] = []
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'follow-'))
    log = join(dir, 'serial.log')
  })
  afterEach(() => {
    for (const stop of stops.splice(0)) stop()
    rmSync(dir, { recursive: true })
  })
  const following = (from?: number | 'end'): string[] => {
    const lines: string[] = []
    stops.push(follow(log, (line) => lines.push(line), { from }))
    return lines
  }

  test('waits for the file, yields only whole lines and characters, and drops CR', async () => {
    const lines = following()
    await pause(0.05)
    const bytes = Buffer.from('één\r\nzwei\nthr')
    writeFileSync(log, bytes.subarray(0, 1))
    await pause(0.3)
    appendFileSync(log, bytes.subarray(1))
    await until(lines, 2)
    expect(lines).toEqual(['één', 'zwei'])
    appendFileSync(log, 'ee\n')
    await until(lines, 3)
    expect(lines[2]).toBe('three')
  })

  test('starts over when the file is truncated or replaced', async () => {
    writeFileSync(log, 'one long first line\nrest without end')
    const lines = following()
    await until(lines, 1)
    truncateSync(log, 0)
    appendFileSync(log, 'two\n')
    await until(lines, 2)
    writeFileSync(join(dir, 'new'), 'a replaced file that is longer than the one before it\n')
    renameSync(join(dir, 'new'), log)
    await until(lines, 3)
    expect(lines).toEqual([
      'one long first line',
      'two',
      'a replaced file that is longer than the one before it',
    ])
  })

  test('can start at the end, and yields nothing once stopped', async () => {
    writeFileSync(log, 'old\n')
    const lines = following('end')
    appendFileSync(log, 'new\n')
    await until(lines, 1)
    expect(lines).toEqual(['new'])
    stops[0]?.()
    appendFileSync(log, 'late\n')
    await pause(0.4)
    expect(lines).toEqual(['new'])
  })

  test('polls if the directory does not exist yet, as inotify cannot watch it', async () => {
    rmSync(dir, { recursive: true })
    const lines = following()
    mkdirSync(dir)
    writeFileSync(log, 'late\n')
    await until(lines, 1)
    expect(lines).toEqual(['late'])
  })
})
