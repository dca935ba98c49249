import { AsyncLocalStorage } from 'node:async_hooks'
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { homedir, tmpdir, userInfo } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { usage } from './failure.ts'

/** The project's own directory. */
export const project = dirname(dirname(fileURLToPath(import.meta.url)))

/** The settings that are paths. */
const paths = 'HOME CACHE FLAKE DOTFILES NIXOS_IMAGE OVMF_CODE OVMF_VARS'
  .split(' ')
  .map((path) => `LAB_${path}`)

/**
 * Reads `.env`, or the file that LAB_ENV_FILE names (none where that is empty); a variable that is set already wins,
 * and a flag beats both. Paths in it are meant from where the file is.
 * @throws Failure (usage) when it is there and cannot be read, or was named and is not there
 */
export async function loadEnv(): Promise<void> {
  const named = process.env['LAB_ENV_FILE']
  if (named === '') return
  const file = named === undefined ? join(project, '.env') : givenPath(named)
  if (!isThere(file)) {
    if (named === undefined) return
    throw usage(
      `Cannot read \`${file}\` of LAB_ENV_FILE: it does not exist`,
      'Name a file that is there, or unset LAB_ENV_FILE',
    )
  }
  const { config } = await import('dotenv')
  const unset = paths.filter((name) => process.env[name] === undefined)
  const { error, parsed = {} } = config({ path: file, quiet: true })
  if (error) throw usage(`Cannot read \`${file}\`: ${(error as NodeJS.ErrnoException).code}`)
  for (const name of unset) {
    const value = parsed[name]
    if (value && !value.startsWith('~')) process.env[name] = resolve(dirname(file), value)
  }
  await refuseSlips(file, parsed)
}

/** @throws Failure (usage) for what dotenv passes over in silence, or takes for a part of a value */
async function refuseSlips(file: string, parsed: Record<string, string>): Promise<void> {
  const text = utf8Text(file)
  // in any spelling: dotenv takes `lab_home` for another setting, and passes over `set LAB_HOME=…`
  for (const { 1: key = '', index } of text.matchAll(
    /^[^\S\n]*(?:(?:export|set)\s+)?(lab[_-][\w-]+)/gim,
  )) {
    const where = `line ${text.slice(0, index).split('\n').length} of \`${file}\``
    const [line = ''] = text.slice(index).split('\n')
    const example = readFileSync(join(project, '.env.example'), 'utf8')
    const known = [...example.matchAll(/LAB_\w+(?==)/g)].map(([one]) => one)
    if (!known.includes(key)) {
      const { suggest } = await import('./nearest.ts')
      throw usage(
        `Cannot read ${where}: there is no setting \`${key}\``,
        `${suggest(key, known)}.env.example has all of them`,
      )
    }
    // dotenv has a comment begin there, a shell does not
    if (/^[^=]*=\s*[^\s'"`#][^#]*(?<=\S)#/.test(line))
      throw usage(
        `Cannot read ${where}: a \`#\` in a value`,
        `Write ${key}="…", or a blank before a comment`,
      )
    // a quote that is not closed becomes a part of the value, and one that is closed further down has lines in it
    if (/^["'`]|\n/.test(parsed[key] ?? '"'))
      throw usage(`Cannot read ${where}`, `Write ${key}=…, with a quote at both ends or none`)
    const [variable] = paths.includes(key)
      ? (/\$\{?\w+\}?|^~[^/]+/.exec(parsed[key] ?? '') ?? [])
      : []
    if (variable !== undefined)
      throw usage(`Cannot read ${where}: \`${variable}\` stays as it is`, 'Write a path, as ~/lab')
  }
}

/**
 * Whether a file is there that may be left out.
 * @throws Failure (usage) for a symlink that leads nowhere, which its maker meant to be read
 */
export function isThere(file: string): boolean {
  if (existsSync(file)) return true
  try {
    readlinkSync(file)
  } catch {
    return false
  }
  throw usage(
    `Cannot read \`${file}\`: it is a symlink that leads to no file`,
    'Remove it, or make the file that it leads to',
  )
}

/** The text of a file that a person wrote. @throws Failure (usage) for one that some editor saved in another encoding */
export function utf8Text(file: string): string {
  const raw = readFileSync(file)
  // of UTF-16 without a mark, all that is seen are zeros
  if (!isUtf8(raw) || raw.includes(0))
    throw usage(`Cannot read \`${file}\`: it is not UTF-8`, 'Save it anew as UTF-8')
  return raw.toString()
}

/** An empty HOME is none; it would be the directory that the user is in. */
const userHome = (): string => homedir() || userInfo().homedir

/** A path from a variable; dotenv leaves `~` as it is, so it is read here. */
export const givenPath = (text: string): string => resolve(text.replace(/^~(?=\/|$)/, userHome))

const xdg = (variable: string, fallback: string): string =>
  process.env[variable] || join(userHome(), fallback)

/** The lab of the work at hand, where that is a copy. */
const atWorkIn = new AsyncLocalStorage<string>()

/**
 * Does work in another lab: all that it calls, and waits for, has that directory for its `LAB_HOME`. Labs are
 * at work side by side in one process like this, which a variable of the process could not have.
 */
export const inLab = <T>(home: string, work: () => T): T => atWorkIn.run(home, work)

/** One directory per VM and the records of runs. */
export const labHome = (): string =>
  atWorkIn.getStore() ??
  givenPath(process.env['LAB_HOME'] || join(xdg('XDG_STATE_HOME', '.local/state'), 'gitops-vm-lab'))

/** Base images by content hash; safe to delete while no VM exists. */
export const labCache = (): string =>
  givenPath(process.env['LAB_CACHE'] || join(xdg('XDG_CACHE_HOME', '.cache'), 'gitops-vm-lab'))

/** The flake whose hosts the lab deploys. */
export const labFlake = (): string => givenPath(process.env['LAB_FLAKE'] || project)

/**
 * Where sockets live: a path short enough for the 104 characters that a Unix socket may have,
 * different for each `LAB_HOME`.
 */
export const runtimeDir = (): string => {
  const id = createHash('sha256').update(labHome()).digest('hex').slice(0, 8)
  const base = process.env['XDG_RUNTIME_DIR']
  // 50 leave room for the rest: `/vmlab-<uid>-<id>/<host>/console`
  const short = base && base.length <= 50 && existsSync(base) ? base : tmpdir()
  return join(short.length <= 50 ? short : '/tmp', `vmlab-${process.getuid?.() ?? 0}-${id}`)
}

/** Where the sockets of one VM live; a name that is too long is cut and told apart by its hash. */
export const socketDir = (host: string): string => {
  const hash = createHash('sha256').update(host).digest('hex').slice(0, 8)
  return join(runtimeDir(), host.length <= 20 ? host : `${host.slice(0, 11)}-${hash}`)
}

export type GuestKind = 'debian' | 'nixos'

/**
 * A size as QEMU and people write it (`512M`, `2G`, `20GiB`), in bytes.
 * @throws Failure (usage) when it is no size
 */
export function bytes(text: string, what: string): number {
  const found = /^([1-9][0-9]*(?:\.[0-9]+)?)\s*([KMGT])(?:i?B)?$/i.exec(text.trim())
  const unit = { K: 1, M: 2, G: 3, T: 4 }[found?.[2]?.toUpperCase() ?? '']
  const size = unit ? Math.round(Number(found![1]) * 1024 ** unit) : 0
  if (!Number.isSafeInteger(size) || size === 0) {
    throw usage(
      `Cannot read \`${text}\` as ${what}`,
      'Write a number and a unit, such as 2G or 512M',
    )
  }
  return size
}
