import { openSync, closeSync, constants, renameSync, rmSync } from 'node:fs'
import { run } from '../run.ts'

/**
 * Replaces a file by a named pipe, so that every reader blocks until the pipe is removed.
 * @returns puts the file back and releases the blocked readers, who read nothing
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
      // fails when no reader waits
      closeSync(openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK))
    } catch {}
    rmSync(pipe)
  }
}
