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
 * Reads `.env`, or the file that LAB_ENV_FILE names (none if that is empty). A variable that is already set
 * overrides it, and a flag overrides both. Paths in it are relative to the file.
 * @throws Failure (usage) if it exists and cannot be read, or was named and does not exist
 */
export async function loadEnv(): Promise<void> {
  const named = process.env['LAB_ENV_FILE']
  if (named === '') return
  const file = named === undefined ? join(project, '.env') : givenPath(named)
  if (!isThere(file)) {
    if (named === undefined) return
    throw usage(
      `Cannot read \`${file}\` of LAB_ENV_FILE: it does not exist`,
      'Name a file that exists, or unset LAB_ENV_FILE',
    )
  }
  const { config } = await import('dotenv')
  const unset = paths.filter((name) => process.env[name] === undefined)
  const { error, parsed = {} } = config({ path: file, quiet: true })
  if (error) {
    const { code } = error as NodeJS.ErrnoException
    throw usage(
      `Cannot read \`${file}\`: ${code === 'EISDIR' ? 'it is a directory' : code}`,
      'Make it a file that this user can read, or name another in LAB_ENV_FILE',
    )
  }
  for (const name of unset) {
    const value = parsed[name]
    if (value && !value.startsWith('~')) process.env[name] = resolve(dirname(file), value)
  }
  await refuseSlips(file, parsed)
}

/** @throws Failure (usage) for mistakes that dotenv silently ignores or reads as part of a value */
async function refuseSlips(file: string, parsed: Record<string, string>): Promise<void> {
  const text = utf8Text(file)
  // in any spelling: dotenv reads `lab_home` as another setting and ignores `set LAB_HOME=…`
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
    // dotenv starts a comment at this `#`, a shell does not
    if (/^[^=]*=\s*[^\s'"`#][^#]*(?<=\S)#/.test(line))
      throw usage(
        `Cannot read ${where}: a \`#\` in a value`,
        `Write ${key}="…", or a blank before a comment`,
      )
    // an unclosed quote becomes part of the value; one that is closed further down includes the lines between
    if (/^["'`]|\n/.test(parsed[key] ?? '"'))
      throw usage(`Cannot read ${where}`, `Write ${key}=…, with a quote at both ends or none`)
    const [variable] = paths.includes(key)
      ? (/\$\{?\w+\}?|^~[^/]+/.exec(parsed[key] ?? '') ?? [])
      : []
    if (variable !== undefined)
      throw usage(`Cannot read ${where}: \`${variable}\` is not expanded`, 'Write a path, as ~/lab')
  }
}

/**
 * Whether an optional file exists.
 * @throws Failure (usage) for a symlink that leads nowhere: the user who made it expects the file to be read
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

/** The text of a file that a person wrote. @throws Failure (usage) if an editor saved it in another encoding */
export function utf8Text(file: string): string {
  const raw = readFileSync(file)
  // UTF-16 without a byte order mark shows only by its zero bytes
  if (!isUtf8(raw) || raw.includes(0))
    throw usage(`Cannot read \`${file}\`: it is not UTF-8`, 'Save it anew as UTF-8')
  return raw.toString()
}

/** Treats an empty HOME as unset; it would otherwise mean the current directory. */
const userHome = (): string => homedir() || userInfo().homedir

/** A path from a variable; dotenv does not expand `~`, so it is expanded here. */
export const givenPath = (text: string): string => resolve(text.replace(/^~(?=\/|$)/, userHome))

const xdg = (variable: string, fallback: string): string =>
  process.env[variable] || join(userHome(), fallback)

/** The `LAB_HOME` of the current work, if that runs in a copy of the lab. */
const atWorkIn = new AsyncLocalStorage<string>()

/**
 * Runs work in another lab: everything that it calls and awaits uses that directory as its `LAB_HOME`. Several
 * labs can work side by side in one process this way, which an environment variable would not allow.
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

/** Where the sockets of one VM live; a long name is cut and kept unique by its hash. */
export const socketDir = (host: string): string => {
  const hash = createHash('sha256').update(host).digest('hex').slice(0, 8)
  return join(runtimeDir(), host.length <= 20 ? host : `${host.slice(0, 11)}-${hash}`)
}

export type GuestKind = 'debian' | 'nixos'

/**
 * A size as QEMU and people write it (`512M`, `2G`, `20GiB`), in bytes.
 * @throws Failure (usage) if it is not a size
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
