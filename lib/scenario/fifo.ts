import { openSync, closeSync, constants, renameSync, rmSync } from 'node:fs'
import { run } from '../run.ts'

/**
 * Puts a named pipe in a file's place: whoever opens it to read waits, for ever if nobody ends it.
 * @returns puts the file back and lets those who wait go on, into nothing
 */
export async function mkfifo(path: string): Promise<() => Promise<void>> {
  const kept = `${path}.kept`
  renameSync(path, kept)
  await run('mkfifo', [path])
  return async () => {
    const pipe = `${path}.pipe`
    renameSync(path, pipe)
    renameSync(kept, path)
    try {
      // fails when nobody waits
      closeSync(openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK))
    } catch {}
    rmSync(pipe)
  }
}
