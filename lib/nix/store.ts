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

/** An absolute path in a Nix store. */
export type StorePath = `/${string}`

/**
 * Options for every nix command that evaluates or builds for the guest. The store is a separate
 * directory, as the guest's kernel is an input that is not in the derivation (see toplevel.nix).
 * The sandbox gives builders a POSIX shell, cp, mkdir, ln, chmod, cat, rm, and the image's kernel
 * and first stage. Works as root and, through user namespaces, as any user.
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

/** The same for a task that only evaluates, for which no image has to exist. */
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
/** For a store that belongs to the user: it has no build users and no cache. */
const ownStore = ['--option', 'build-users-group', '', '--option', 'substituters', '']

/**
 * Creates a new store elsewhere and moves it into place at once. Two nix commands that find no store both create it in
 * place, and one of them fails: because the link in gcroots exists already, or because it reads `db/schema` while the
 * other writes it (both seen with 2.8, the first with 2.34 too).
 * @throws Failure when nix cannot be run or creates no store
 */
function layOut(store: string): void {
  // nix itself completes a partial store
  if (existsSync(join(store, 'nix'))) return
  const made = mkdtempSync(`${store}-`)
  try {
    chmodSync(made, 0o755)
    execFileSync('nix-store', ['--store', made, ...ownStore, '--init'], { stdio: 'pipe' })
    const profiles = join(made, 'nix/var/nix/gcroots/profiles')
    // nix 2.34.8 creates no such link, other versions one to the temporary place
    rmSync(profiles, { force: true })
    symlinkSync(join(store, 'nix/var/nix/profiles'), profiles)
    renameSync(made, store)
  } catch (error) {
    rmSync(made, { recursive: true, force: true })
    // another process was first
    if (existsSync(join(store, 'nix'))) return
    const { code, stderr } = error as NodeJS.ErrnoException & { stderr?: Buffer }
    throw new Failure(`Cannot make a Nix store in \`${store}\``, {
      hint: code === 'ENOENT' ? 'just doctor names the package that nix comes with' : undefined,
      evidence: stderr?.toString().trim() || String(error),
    })
  }
}
