import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure, usage } from './failure.ts'
import { allPromises, type Promised } from './scenario/promise.ts'
import { isThere, labFlake, utf8Text } from './settings.ts'

/** The kinds of upgrade mechanism that the lab knows; `unit` is any other systemd unit. */
export const upgradeKinds = ['lab', 'nixos-upgrade', 'comin', 'unit'] as const
export type UpgradeKind = (typeof upgradeKinds)[number]
export const upgradeKindsInWords = new Intl.ListFormat('en-GB', { type: 'disjunction' }).format(
  upgradeKinds,
)

/** The names that a flake uses for what the lab works with. */
export interface LabSettings {
  /** The user whose files and login the lab uses; null means the host's primary user. */
  user: string | null
  /** Branch that is deployed, and through which hosts share their dotfiles. */
  branch: string
  /** Units that need something a VM lacks, such as the internet; their failures do not count. See `mayFail`. */
  mayFail: string[]
  /** Service names without `.service`, by purpose. */
  units: { upgrade: string; sync: string; golden: string }
  /** Directories in the guest; `~/` is the user's home. */
  paths: { flake: string; dotfiles: string }
  /** The first port that a VM's SSH is forwarded to, on 127.0.0.1. */
  ports: { ssh: number }
  /** The upgrade mechanism that the scenarios judge; null means the one detected on the hosts. */
  upgrade: {
    kind: UpgradeKind | null
    /** Service name without `.service`. */
    unit: string | null
    /** Address that the unit fetches from; null means that it uses the flake at `paths.flake`. */
    remote: string | null
    /** What it promises, if that differs from what its kind promises. */
    promises: Promised[] | null
  }
}

const defaults: LabSettings = {
  user: null,
  branch: 'main',
  mayFail: [],
  units: {
    upgrade: 'nix-local-upgrade',
    sync: 'chezmoi-pre-update',
    golden: 'golden-boot-validation',
  },
  paths: { flake: '~/nix-config', dotfiles: '~/.local/share/chezmoi' },
  ports: { ssh: 2222 },
  upgrade: { kind: null, unit: null, remote: null, promises: null },
}

/** Each setting: its path in lab.toml, its variable, its valid form, and that form in words. */
const known: [path: string, variable: string, form: RegExp, what: string][] = [
  ['user', 'LAB_USER', /^[A-Za-z_][A-Za-z0-9_.-]{0,30}$/, 'a user name'],
  // a branch name that git accepts
  [
    'branch',
    'LAB_BRANCH',
    /^(?!HEAD$|.*(?:\.\.|\/[./]|[./]$|\.lock(?:\/|$)))\w[\w./-]*$/,
    'a branch',
  ],
  // a leading `*` would match units that nobody had in mind
  ['may-fail', 'LAB_MAY_FAIL', /^(\w[\w@:.*\\-]*(,\w[\w@:.*\\-]*)*)?$/, 'a list of units'],
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
  [
    'upgrade.kind',
    'LAB_UPGRADE_KIND',
    new RegExp(`^(${upgradeKinds.join('|')})$`),
    upgradeKindsInWords,
  ],
  ['upgrade.unit', 'LAB_UPGRADE_BY', /^[\w@:.\\-]+$/, 'a unit'],
  ['upgrade.remote', 'LAB_UPGRADE_REMOTE', /^[\w.+@:/~-]+$/, 'the address of a git repository'],
  [
    'upgrade.promises',
    'LAB_UPGRADE_PROMISES',
    new RegExp(`^(${allPromises.join('|')})(,(${allPromises.join('|')}))*$`),
    `a list of ${allPromises.join(', ')}`,
  ],
]

/** Settings that are lists of words; a variable separates them by commas. */
const lists = ['may-fail', 'upgrade.promises']

/** The units of the lab's own agents, which the scenarios are about. */
export const ownUnits: LabSettings['units'] = { ...defaults.units }

const unitTypes = /\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$/

/**
 * Whether a unit may fail.
 * @param unit with its type, such as `acme-example.org.service`
 * @param names as in `lab.toml`: `*` matches any part of a name, and a name without a type is a service
 */
export const mayFail = (unit: string, names: string[]): boolean =>
  names.some((name) => {
    const whole = unitTypes.test(name) ? name : `${name}.service`
    const parts = whole.split('*').map((part) => part.replaceAll(/[.\\]/g, String.raw`\$&`))
    return new RegExp(`^${parts.join('.*')}$`).test(unit)
  })

/** The hint for a failed unit. */
export const mayFailHint =
  'If it needs something that a VM lacks, such as the internet, name it in `may-fail` of lab.toml'

/** A guest directory, relative to the user's home, for a command that runs there. */
export const fromHome = (path: string): string => path.replace(/^~\//, '')

/** The same, absolute. */
export const inHome = (path: string, home: string): string => path.replace(/^~(?=\/)/, home)

let read: { key: string; settings: LabSettings } | undefined

/**
 * Reads `lab.toml` beside the flake's `flake.nix`. A variable overrides it; a setting in neither has
 * its default.
 * @throws Failure (usage) naming the line that cannot be read, or the unknown setting
 */
export async function labSettings(flake = labFlake()): Promise<LabSettings> {
  const key = JSON.stringify([flake, known.map(([, variable]) => process.env[variable])])
  if (read?.key === key) return read.settings
  const file = join(flake, 'lab.toml')
  const written = isThere(file) ? await parse(file) : {}
  const settings = structuredClone(defaults)
  for (const [path, variable, form, what] of known) {
    const set = process.env[variable]
    const value = set || at(written, path)
    if (value === undefined) continue
    const from = set ? variable : `\`${path}\` of ${placeOf(file, path)}`
    const isList = lists.includes(path)
    const text = isList && Array.isArray(value) ? value.join() : numberless(value)
    if (typeof text !== 'string' || !form.test(text) || Array.isArray(value) !== (isList && !set)) {
      throw usage(`Cannot read ${from} as ${what}: ${JSON.stringify(value)}`)
    }
    const plain = text.replace(/\.service$/, '')
    put(
      settings,
      path,
      path === 'ports.ssh' ? Number(text) : isList ? text.split(',').filter(Boolean) : plain,
    )
  }
  const { kind, unit } = settings.upgrade
  // the other tasks find the upgrade unit by this name
  const upgrades = unit ?? (kind === 'nixos-upgrade' || kind === 'comin' ? kind : null)
  if (upgrades !== null && settings.units.upgrade === ownUnits.upgrade)
    settings.units.upgrade = upgrades
  read = { key, settings }
  return settings
}

export type Toml = { [key: string]: unknown }

/** Reads a TOML file. @throws Failure (usage) with the line that cannot be read */
export async function readToml(file: string): Promise<Toml> {
  const { parse: parseToml } = await import('smol-toml')
  try {
    return parseToml(utf8Text(file))
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    const [line] = (cause as Error).message.split('\n')
    const { line: number } = cause as { line?: number }
    throw usage(`Cannot read \`${file}\`${number ? `, line ${number}` : ''}: ${line}`)
  }
}

async function parse(file: string): Promise<Toml> {
  // the user's own promises are read where they are run
  const { promise: _, ...found } = await readToml(file)
  for (const path of leaves(found)) {
    if (known.some(([one]) => one === path)) continue
    throw usage(
      `Cannot read ${placeOf(file, path)}: there is no setting \`${path}\``,
      `There are ${known.map(([one]) => one).join(', ')} and [[promise]]`,
    )
  }
  return found
}

const numberless = (value: unknown): unknown => (typeof value === 'number' ? String(value) : value)

/** A file, with the line of a setting in it if that can be found. */
function placeOf(file: string, path: string): string {
  let table = ''
  const lines = readFileSync(file, 'utf8').split('\n')
  const at = lines.findIndex((line) => {
    table = /^\s*\[+\s*([\w.-]+)\s*\]/.exec(line)?.[1] ?? table
    const key = /^\s*([\w."-]+)\s*=/.exec(line)?.[1]?.replaceAll('"', '')
    return key !== undefined && [table, key].filter(Boolean).join('.') === path
  })
  return `\`${file}\`${at < 0 ? '' : ` (line ${at + 1})`}`
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
  const keys = path.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase()).split('.')
  const last = keys.pop()!
  const inner = keys.reduce<unknown>((found, key) => (found as Toml)[key], settings)
  if (!inner) throw new Failure(`Cannot set \`${path}\``)
  ;(inner as Toml)[last] = value
}
