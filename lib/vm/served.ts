import { lstatSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { isAbsolute, join, relative } from 'node:path'
import { Failure } from '../failure.ts'
import { evaluationStore } from '../nix/store.ts'
import { labHome, type GuestKind } from '../settings.ts'

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
    link(relative(dir, join(from, repository)), dir, repository)
  }
}

/** What QEMU hands to cache.mjs for a guest. */
export const cacheOf = (host: string): string => join(labHome(), 'srv', '.cache', host)

/**
 * Serves a guest, as its binary cache on uplink, the store in which its toplevels are built: for NixOS the machine's
 * own. What was broken of the cache is whole again.
 */
export function serveStore(host: string, guest: GuestKind): void {
  const dir = cacheOf(host)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const remote = process.env['NIX_REMOTE'] ?? ''
  const own = isAbsolute(remote) ? remote : '/'
  link(guest === 'nixos' ? own : evaluationStore()[1]!, dir, 'store')
  for (const file of ['fault', answerFile]) rmSync(join(dir, file), { force: true })
}

/** What the web server of a guest's uplink says below a path. */
export interface Answer {
  path: string
  status: number
  headers?: Record<string, string>
  /** The file to answer with; nothing without one. */
  file?: string
  /** Key and certificate, as PEM: the server speaks TLS then, and nothing else, the binary cache included. */
  tls?: { key: string; cert: string }
}
const answerFile = 'answer.json'

/** Has a guest's web server, at http://git.lab, give an answer until `serveStore`, or until it is given another. */
export function answerWith(host: string, answer: Answer): void {
  writeFileSync(join(cacheOf(host), answerFile), JSON.stringify(answer), { mode: 0o600 })
}

/** How a guest's cache misbehaves: it is not there, it ends in the middle of a path, or gives another byte. */
export type CacheFault = 'gone' | 'cut' | 'wrong'

/** Breaks a guest's cache until `serveStore`. */
export function breakCache(host: string, fault: CacheFault): void {
  if (fault === 'gone') rmSync(join(cacheOf(host), 'store'))
  else writeFileSync(join(cacheOf(host), 'fault'), fault)
}

/** @throws Failure when somebody made a directory of that name by hand */
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

/** Serves a guest nothing; an upgrade of what it has cloned is offline then. */
export function serveNothing(host: string): void {
  for (const repository of repositories) {
    const path = join(served(host), repository)
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(path)
  }
}
