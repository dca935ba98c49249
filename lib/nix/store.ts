import {
  chmodSync,
  existsSync,
  mkdirSync,
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
  layOut(join(store, 'nix/var/nix'))
  return ['--store', store, '--option', 'build-users-group', '', '--option', 'substituters', '']
}

/**
 * Makes a store's directory of gcroots, whole at once. Of two nix commands that find a store without one,
 * both make it, and the second fails as the link in it is there (nix up to 2.34: `LocalStore` looks
 * first and makes then).
 */
function layOut(state: string): void {
  const roots = join(state, 'gcroots')
  if (existsSync(roots)) return
  mkdirSync(state, { recursive: true, mode: 0o755 })
  const made = mkdtempSync(join(state, 'gcroots-'))
  chmodSync(made, 0o755)
  symlinkSync(join(state, 'profiles'), join(made, 'profiles'))
  try {
    renameSync(made, roots)
  } catch (error) {
    rmSync(made, { recursive: true })
    // somebody else was first
    if (!existsSync(roots)) throw error
  }
}
