import { existsSync, lstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Failure } from './failure.ts'

const swept = new Set<string>()

/**
 * A directory for temporary files. The caller removes it; one that is left over is removed when the process ends,
 * Ctrl-C included, and that of a killed process when the next process asks for a directory.
 * @param name what it is for, shown in its file name
 * @param within its parent directory, for files that are moved from it within the same file system
 * @throws Failure if that does not exist
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
    // such as the TMPDIR of a nix develop shell that has ended
    const hint = 'Set TMPDIR to a directory that exists'
    throw new Failure(`Cannot use \`${within}\`: it does not exist`, { hint, cause })
  }
}

/** Removes the user's scratch directories whose process has ended. @param own a process that is just ending */
export function sweepScratch(within = tmpdir(), own?: number): void {
  for (const entry of existsSync(within) ? readdirSync(within) : []) {
    const pid = /^vmlab-scratch-(\d+)-/.exec(entry)?.[1]
    if (!pid || (Number(pid) !== own && existsSync(`/proc/${pid}`))) continue
    const path = join(within, entry)
    if (lstatSync(path, { throwIfNoEntry: false })?.uid !== process.getuid?.()) continue
    // a command that is being killed may still write there; the next sweep removes what it leaves
    try {
      rmSync(path, { recursive: true, force: true, maxRetries: 3 })
    } catch {}
  }
}
