import { lstatSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { isAbsolute, join, relative } from 'node:path'
import { Failure } from '../failure.ts'
import { evaluationStore } from '../nix/store.ts'
import { labHome, type GuestKind } from '../settings.ts'

/**
 * The directory of bare git repositories that one guest reaches at git://git.lab (10.0.3.100), over uplink
 * only. Guests share a repository when their directories hold symlinks to the same one.
 */
export const served = (host: string): string => join(labHome(), 'srv', host)

/** The repositories that every guest is served: the flake it is upgraded from, and its dotfiles. */
export const repositories = ['config.git', 'dotfiles.git'] as const

/**
 * Serves a guest the repositories of a directory, instead of those that it was served before.
 * @throws Failure when a directory that the lab did not make has the name of the link
 */
export function serve(from: string, host: string): void {
  const dir = served(host)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  for (const repository of repositories) {
    link(relative(dir, join(from, repository)), dir, repository)
  }
}

/** The directory that QEMU passes to cache.mjs for a guest. */
export const cacheOf = (host: string): string => join(labHome(), 'srv', '.cache', host)

/**
 * Serves a guest the store in which its toplevels are built, as its binary cache on uplink. For NixOS that is the
 * machine's own store. Removes any fault and answer that was set for the guest.
 */
export function serveStore(host: string, guest: GuestKind): void {
  const dir = cacheOf(host)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const remote = process.env['NIX_REMOTE'] ?? ''
  const own = isAbsolute(remote) ? remote : '/'
  link(guest === 'nixos' ? own : evaluationStore()[1]!, dir, 'store')
  for (const file of ['fault', answerFile]) rmSync(join(dir, file), { force: true })
}

/** What the web server of a guest's uplink answers below a path. */
export interface Answer {
  path: string
  status: number
  headers?: Record<string, string>
  /** The file to answer with. Default: an empty body. */
  file?: string
  /** Key and certificate, as PEM. With them the server, including the binary cache, speaks only TLS. */
  tls?: { key: string; cert: string }
}
const answerFile = 'answer.json'

/** Sets what a guest's web server, at http://git.lab, answers, until the next call of this or of `serveStore`. */
export function answerWith(host: string, answer: Answer): void {
  writeFileSync(join(cacheOf(host), answerFile), JSON.stringify(answer), { mode: 0o600 })
}

/** How a guest's cache misbehaves: it is missing, it ends in the middle of a path, or it sends a wrong byte. */
export type CacheFault = 'gone' | 'cut' | 'wrong'

/** Breaks a guest's cache until `serveStore`. */
export function breakCache(host: string, fault: CacheFault): void {
  if (fault === 'gone') rmSync(join(cacheOf(host), 'store'))
  else writeFileSync(join(cacheOf(host), 'fault'), fault)
}

/** Points a symlink to `to`, atomically. @throws Failure when a directory that the lab did not make has its name */
function link(to: string, dir: string, name: string): void {
  const beside = join(dir, `.${name}.new`)
  rmSync(beside, { force: true })
  symlinkSync(to, beside)
  try {
    renameSync(beside, join(dir, name))
  } catch (cause) {
    throw new Failure(`Cannot serve \`${join(dir, name)}\`: it is not the lab's`, {
      hint: 'Move it away',
      cause,
    })
  }
}

/** Serves a guest no repositories, so that an upgrade from a clone of them ends as offline. */
export function serveNothing(host: string): void {
  for (const repository of repositories) {
    const path = join(served(host), repository)
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(path)
  }
}
