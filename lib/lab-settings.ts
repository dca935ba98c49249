import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure, usage } from './failure.ts'
import { labFlake } from './settings.ts'

/** The names by which a flake calls what the lab works with. */
export interface LabSettings {
  /** Whose files and whose login; null means the host's own primary user. */
  user: string | null
  /** Branch that is deployed, and that hosts share their dotfiles by. */
  branch: string
  /** Services without `.service`, by what they are for. */
  units: { upgrade: string; sync: string; golden: string }
  /** Directories in the guest; `~/` is the user's home. */
  paths: { flake: string; dotfiles: string }
  /** The first port that a VM's SSH is forwarded to, on 127.0.0.1. */
  ports: { ssh: number }
}

const defaults: LabSettings = {
  user: null,
  branch: 'main',
  units: {
    upgrade: 'nix-local-upgrade',
    sync: 'chezmoi-pre-update',
    golden: 'golden-boot-validation',
  },
  paths: { flake: '~/nix-config', dotfiles: '~/.local/share/chezmoi' },
  ports: { ssh: 2222 },
}

/** Each setting: where it is in lab.toml, its variable, and what it may be. */
const known: [path: string, variable: string, form: RegExp, what: string][] = [
  ['user', 'LAB_USER', /^[a-z_][a-z0-9_-]{0,30}$/, 'a user name'],
  ['branch', 'LAB_BRANCH', /^[\w][\w./-]*$/, 'a branch'],
  ['units.upgrade', 'LAB_UPGRADE_UNIT', /^[\w@:.\\-]+$/, 'a unit'],
  ['units.sync', 'LAB_SYNC_UNIT', /^[\w@:.\\-]+$/, 'a unit'],
  ['units.golden', 'LAB_GOLDEN_UNIT', /^[\w@:.\\-]+$/, 'a unit'],
  ['paths.flake', 'LAB_FLAKE_PATH', /^~?\/(?!.*(^|\/)\.\.?(\/|$))[\w./@+-]+$/, 'an absolute path'],
  [
    'paths.dotfiles',
    'LAB_DOTFILES_PATH',
    /^~?\/(?!.*(^|\/)\.\.?(\/|$))[\w./@+-]+$/,
    'an absolute path',
  ],
  [
    'ports.ssh',
    'LAB_SSH_PORT',
    /^(102[4-9]|10[3-9]\d|1[1-9]\d\d|[2-9]\d{3}|[1-5]\d{4})$/,
    'a port',
  ],
]

/** The units of the lab's own agents, which the scenarios are about. */
export const ownUnits: LabSettings['units'] = { ...defaults.units }

/** A directory of the guest in a command that runs in the user's home. */
export const fromHome = (path: string): string => path.replace(/^~\//, '')

/** The same, absolute. */
export const inHome = (path: string, home: string): string => path.replace(/^~(?=\/)/, home)

let read: { key: string; settings: LabSettings } | undefined

/**
 * What `lab.toml` beside the flake's `flake.nix` says; a variable beats it, and what neither names
 * has its default.
 * @throws Failure (usage) naming the line that cannot be read, or a setting that there is none of
 */
export async function labSettings(flake = labFlake()): Promise<LabSettings> {
  const key = JSON.stringify([flake, known.map(([, variable]) => process.env[variable])])
  if (read?.key === key) return read.settings
  const file = join(flake, 'lab.toml')
  const written = existsSync(file) ? await parse(file) : {}
  const settings = structuredClone(defaults)
  for (const [path, variable, form, what] of known) {
    const set = process.env[variable]
    const value = set || at(written, path)
    if (value === undefined) continue
    const from = set ? variable : `\`${path}\` of \`${file}\``
    const text = typeof value === 'number' ? String(value) : value
    if (typeof text !== 'string' || !form.test(text)) {
      throw usage(`Cannot read ${from} as ${what}: ${JSON.stringify(value)}`)
    }
    put(settings, path, path === 'ports.ssh' ? Number(text) : text.replace(/\.service$/, ''))
  }
  read = { key, settings }
  return settings
}

type Toml = { [key: string]: unknown }

async function parse(file: string): Promise<Toml> {
  const { parse: parseToml } = await import('smol-toml')
  let found: Toml
  try {
    found = parseToml(readFileSync(file, 'utf8'))
  } catch (cause) {
    const [line] = (cause as Error).message.split('\n')
    const { line: number } = cause as { line?: number }
    throw usage(`Cannot read \`${file}\`${number ? `, line ${number}` : ''}: ${line}`)
  }
  for (const path of leaves(found)) {
    if (known.some(([one]) => one === path)) continue
    throw usage(
      `Cannot read \`${file}\`: there is no setting \`${path}\``,
      `There are ${known.map(([one]) => one).join(', ')}`,
    )
  }
  return found
}

const leaves = (of: Toml, prefix = ''): string[] =>
  Object.entries(of).flatMap(([key, value]) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? leaves(value as Toml, `${prefix}${key}.`)
      : [`${prefix}${key}`],
  )

const at = (of: Toml, path: string): unknown =>
  path.split('.').reduce<unknown>((inner, key) => (inner as Toml | undefined)?.[key], of)

function put(settings: LabSettings, path: string, value: unknown): void {
  const keys = path.split('.')
  const last = keys.pop()!
  const inner = keys.reduce<unknown>((found, key) => (found as Toml)[key], settings)
  if (!inner) throw new Failure(`Cannot set \`${path}\``)
  ;(inner as Toml)[last] = value
}
