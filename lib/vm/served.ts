import { lstatSync, mkdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { join, relative } from 'node:path'
import { Failure } from '../failure.ts'
import { labHome } from '../settings.ts'

/**
 * Bare git repositories that one guest reaches at git://git.lab (10.0.3.100), over uplink only. Guests
 * share one where their directories hold a symlink to it.
 */
export const served = (host: string): string => join(labHome(), 'srv', host)

/** What every guest is served: the flake that it is upgraded from, and its dotfiles. */
export const repositories = ['config.git', 'dotfiles.git'] as const

/**
 * Serves a guest the repositories of a directory, in place of those that it had.
 * @throws Failure when somebody made a directory of that name by hand
 */
export function serve(from: string, host: string): void {
  const dir = served(host)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  for (const repository of repositories) {
    const beside = join(dir, `.${repository}.new`)
    rmSync(beside, { force: true })
    symlinkSync(relative(dir, join(from, repository)), beside)
    try {
      renameSync(beside, join(dir, repository))
    } catch (cause) {
      throw new Failure(`Cannot serve \`${join(dir, repository)}\`: it is not the lab's`, {
        hint: 'Move it away',
        cause,
      })
    }
  }
}

/** Serves a guest nothing; an upgrade of what it has cloned is offline then. */
export function serveNothing(host: string): void {
  for (const repository of repositories) {
    const path = join(served(host), repository)
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(path)
  }
}
