import { existsSync, lstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Failure } from './failure.ts'

const swept = new Set<string>()

/**
 * A directory for files of the moment. Whoever asks for one removes it; one that is left when the process ends,
 * Ctrl-C included, goes then, and that of a killed process with the next one that asks.
 * @param name what it is for, as it is to be read in a listing
 * @param within where it has to be, for what is moved from it to elsewhere on the same file system
 * @throws Failure when that is not there
 */
export function scratchDirectory(name: string, within = tmpdir()): string {
  if (!swept.has(within)) {
    swept.add(within)
    sweepScratch(within)
    process.on('exit', () => {
      sweepScratch(within, process.pid)
    })
  }
  try {
    return mkdtempSync(join(within, `vmlab-scratch-${process.pid}-${name}-`))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
    // as of a shell of nix develop that has ended
    const hint = 'Set TMPDIR to a directory that is there'
    throw new Failure(`Cannot use \`${within}\`: it does not exist`, { hint, cause })
  }
}

/** Removes the user's scratch directories whose process is no more. @param own a process that is just ending */
export function sweepScratch(within = tmpdir(), own?: number): void {
  for (const entry of existsSync(within) ? readdirSync(within) : []) {
    const pid = /^vmlab-scratch-(\d+)-/.exec(entry)?.[1]
    if (!pid || (Number(pid) !== own && existsSync(`/proc/${pid}`))) continue
    const path = join(within, entry)
    if (lstatSync(path, { throwIfNoEntry: false })?.uid !== process.getuid?.()) continue
    // a command that is just being killed may still write there; what it leaves goes with the next sweep
    try {
      rmSync(path, { recursive: true, force: true, maxRetries: 3 })
    } catch {}
  }
}
