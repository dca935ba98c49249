import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { imageKey, type BaseImage, type ImageOptions } from '../image/base.ts'
import { labCache } from '../settings.ts'

/** Where something is in a store of Nix. */
export type StorePath = `/${string}`

/**
 * Options for every nix command that evaluates or builds for the guest. The store is a directory
 * of its own, as the guest's kernel is an input that is not in the derivation (see toplevel.nix);
 * the sandbox gives builders what they may use: a POSIX shell, cp, mkdir, ln, chmod, cat, rm, and
 * the image's kernel and first stage. Works as root and, through user namespaces, as anyone.
 */
export function storeOptions(base: BaseImage): string[] {
  if (/[\s?=]/.test(base.dir)) {
    throw new Failure(`Cannot keep a Nix store in \`${base.dir}\`: its path has a blank, ? or =`, {
      hint: 'Set LAB_CACHE to another directory',
    })
  }
  const busybox = join(base.dir, 'bin/busybox')
  const tools = ['sh', 'cp', 'mkdir', 'ln', 'chmod', 'cat', 'rm'].map(
    (tool) => `/bin/${tool}=${busybox}`,
  )
  return [
    ...evaluationOptions(join(base.dir, 'store')),
    ...['--option', 'sandbox', 'true', '--option', 'sandbox-fallback', 'false'],
    ...['--option', 'sandbox-paths', [...tools, `/lab/boot=${join(base.dir, 'boot')}`].join(' ')],
  ]
}

/** The same for a task that only evaluates, which an image need not exist for. */
export function evaluationStore(options: ImageOptions = {}): string[] {
  const cache = options.cache ?? labCache()
  const current = join(cache, 'images', imageKey(options))
  const dir = existsSync(current) ? realpathSync(current) : privateDirectory(cache)
  return evaluationOptions(join(dir, 'store'))
}

function evaluationOptions(store: string): string[] {
  layOut(store)
  return ['--store', store, ...ownStore]
}
/** For a store of the user's own, which has no build users and no cache. */
const ownStore = ['--option', 'build-users-group', '', '--option', 'substituters', '']

/**
 * Makes a new store, whole at once. Two nix commands that find none both make it in place, and one of
 * them fails: by the link in its gcroots that is there already, or by a `db/schema` that it reads while
 * the other writes it (both seen with 2.8, the first with 2.34 too).
 * @throws Failure when nix cannot be run or makes none
 */
function layOut(store: string): void {
  // one that is not whole nix itself completes
  if (existsSync(join(store, 'nix'))) return
  const made = mkdtempSync(`${store}-`)
  try {
    chmodSync(made, 0o755)
    execFileSync('nix-store', ['--store', made, ...ownStore, '--init'], { stdio: 'pipe' })
    const profiles = join(made, 'nix/var/nix/gcroots/profiles')
    // nix 2.34.8 makes none, others one that leads to where the store was made
    rmSync(profiles, { force: true })
    symlinkSync(join(store, 'nix/var/nix/profiles'), profiles)
    renameSync(made, store)
  } catch (error) {
    rmSync(made, { recursive: true, force: true })
    // somebody else was first
    if (existsSync(join(store, 'nix'))) return
    const { code, stderr } = error as NodeJS.ErrnoException & { stderr?: Buffer }
    throw new Failure(`Cannot make a Nix store in \`${store}\``, {
      hint: code === 'ENOENT' ? 'just doctor names the package that nix comes with' : undefined,
      evidence: stderr?.toString().trim() || String(error),
    })
  }
}
