import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Failure, usage } from '../failure.ts'
import type { Weather } from '../fault/case.ts'
import { kinds } from '../fault/fault.ts'
import { readRequest } from '../fault/request.ts'
import { readToml } from '../lab-settings.ts'
import { unknown } from '../nearest.ts'
import { isThere, labFlake } from '../settings.ts'
import type { Case, Ends, Family } from './family.ts'
import { allPromises, type Promised } from './promise.ts'
import { keepsPromise, type OwnPromise } from './own-promise.ts'

const ends = ['start', 'main', 'golden', 'any']
const numbers = ['ms', 'percent', 'kbit', 'down', 'up']

/** The allowed values of each setting, in words, and the test for them. */
const forms: Record<string, [what: string, is: (value: unknown) => boolean]> = {
  // files are named after it
  name: [
    'a name of 1 to 63 of a-z, 0-9 and -',
    (value) => isText(value) && /^[a-z][a-z0-9-]{0,62}$/.test(value),
  ],
  title: ['a line of text', (value) => isText(value) && /^[^\p{Cc}\u2028]+$/u.test(value)],
  about: [`one of ${allPromises.join(', ')}`, (value) => allPromises.includes(value as Promised)],
  shell: ['a shell command', (value) => isText(value)],
  patch: [
    'a path below the flake',
    (value) => isText(value) && !/^\/|(^|\/)\.\.(\/|$)/.test(value),
  ],
  fault: [`one of ${faults().join(', ')}`, (value) => faults().includes(value as string)],
  direction: ['out, in or both', (value) => ['out', 'in', 'both'].includes(value as string)],
  ...Object.fromEntries(
    numbers.map((key) => [key, ['a number', (value: unknown) => typeof value === 'number']]),
  ),
  reboot: ['true or false', (value) => typeof value === 'boolean'],
  holds: ['a command, or a list of them', (value) => isCommands(value)],
  fails: ['a command, or a list of them', (value) => isCommands(value)],
  within: [
    'seconds from 1 to 600',
    (value) => typeof value === 'number' && value >= 1 && value <= 600,
  ],
  ends: [`one of ${ends.join(', ')}`, (value) => ends.includes(value as string)],
}

function faults(): string[] {
  return Object.keys(kinds).filter((kind) => kind !== 'partition')
}
function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true
}
function isText(value: unknown): value is string {
  return typeof value === 'string' && value.trim() !== ''
}
function isCommands(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 && value.every(isText) : isText(value)
}

export const describe = 'Run the promises of your own lab.toml, and check that they hold'

/**
 * The family of `lab.toml`'s own promises; without cases where it has none.
 * @throws Failure (usage) naming the line of what is not understood
 */
export async function ownPromises(flake = labFlake()): Promise<Family> {
  return { name: 'promises', describe, cases: (await readPromises(flake)).map(caseOf(flake)) }
}

const caseOf =
  (flake: string) =>
  (one: OwnPromise): Case => ({
    name: one.name,
    title: one.title,
    promise: one.about,
    limit: 300 + one.within + (one.reboot ? 120 : 0) + (one.fault ? 120 : 0),
    ends: one.ends,
    run: (scene) => keepsPromise(scene, one, flake),
  })

/** @throws Failure (usage) naming the line of what is not understood */
export async function readPromises(flake: string): Promise<OwnPromise[]> {
  const file = join(flake, 'lab.toml')
  if (!isThere(file)) return []
  const { promise: written = [] } = await readToml(file)
  const tables = Array.isArray(written) ? (written as unknown[]) : undefined
  if (!tables?.every((one) => typeof one === 'object' && one !== null)) {
    throw usage(`Cannot read \`promise\` of \`${file}\``, 'Begin each with a line [[promise]]')
  }
  const lines = readFileSync(file, 'utf8').split('\n')
  const read: OwnPromise[] = []
  for (const [index, table] of tables.entries()) {
    const one = readOne(table as Record<string, unknown>, (key) => at(file, lines, index, key))
    if (one.patch !== undefined && !isFile(join(flake, one.patch))) {
      throw usage(
        `Cannot read ${at(file, lines, index, 'patch')}: there is no file \`${join(flake, one.patch)}\``,
        'Write the path of the patch from lab.toml',
      )
    }
    if (read.some(({ name }) => name === one.name)) {
      throw usage(`Cannot read ${at(file, lines, index, 'name')}: \`${one.name}\` is there already`)
    }
    read.push(one)
  }
  return read
}

function readOne(table: Record<string, unknown>, where: (key?: string) => string): OwnPromise {
  for (const [key, value] of Object.entries(table)) {
    const form = Object.hasOwn(forms, key) ? forms[key] : undefined
    if (!form) {
      const { message, detail } = unknown(
        'a setting',
        key,
        Object.keys(forms),
        'docs/promises.md lists them',
      )
      throw usage(`Cannot read ${where(key)}: ${message}`, detail.hint)
    }
    if (!form[1](value)) {
      throw usage(`Cannot read \`${key}\` of ${where(key)} as ${form[0]}: ${JSON.stringify(value)}`)
    }
  }
  const { name, title, shell, patch } = table as Record<string, string | undefined>
  if (!name || !title) throw usage(`Cannot read ${where()}: a promise has a name and a title`)
  if (shell && patch)
    throw usage(`Cannot read ${where('patch')}: a promise has shell or patch, not both`)
  const list = (value: unknown): string[] =>
    value === undefined ? [] : ([value].flat() as string[])
  const one: OwnPromise = {
    ...{ name, title, shell, patch },
    about: (table['about'] as Promised | undefined) ?? 'deploy',
    fault: faultOf(table, where),
    reboot: table['reboot'] === true,
    holds: list(table['holds']),
    fails: list(table['fails']),
    within: (table['within'] as number | undefined) ?? 30,
    ends: (table['ends'] as Ends | undefined) ?? 'any',
  }
  const asks = one.holds.length + one.fails.length > 0
  if (!asks && one.ends === 'any') {
    throw usage(
      `Cannot read ${where()}: \`${name}\` would check nothing`,
      'Give it holds, fails or ends',
    )
  }
  // without a change the baseline's system would run in the end, too
  if (!asks && !shell && !patch && !one.fault && !one.reboot) {
    throw usage(
      `Cannot read ${where('ends')}: \`${name}\` would change nothing, so it cannot end otherwise`,
      'Give it shell, patch, fault or reboot',
    )
  }
  return one
}

function faultOf(
  table: Record<string, unknown>,
  where: (key?: string) => string,
): Weather | undefined {
  const { fault } = table
  const extra = [...numbers, 'direction'].find((key) => table[key] !== undefined)
  if (fault === undefined) {
    if (extra === undefined) return undefined
    throw usage(`Cannot read ${where(extra)}: \`${extra}\` needs a fault, and there is none`)
  }
  try {
    const words = { ...table, link: 'uplink', host: 'any' } as Parameters<typeof readRequest>[1]
    const { hosts: _, lease: __, ...weather } = readRequest(fault as string, words)
    return weather
  } catch (thrown) {
    if (!(thrown instanceof Failure)) throw thrown
    // its messages name flags, which are settings here
    const [said, hint] = [thrown.message, thrown.detail.hint].map((text) =>
      text?.replaceAll(/--(?=(?:ms|percent|kbit|down|up)\b)/g, ''),
    )
    throw usage(`Cannot read ${where('fault')}: ${said}`, hint)
  }
}

/** A place in the file: the line of a setting of one promise, or the line that the promise begins with. */
function at(file: string, lines: string[], index: number, key?: string): string {
  const heads = lines.flatMap((line, number) =>
    /^\s*\[\[\s*promise\s*\]\]/.test(line) ? [number] : [],
  )
  const from = heads[index]
  if (from === undefined) return `\`${file}\``
  const inside = lines.slice(from + 1, heads[index + 1])
  const found =
    key === undefined ? -1 : inside.findIndex((line) => line.split('=')[0]!.trim() === key)
  return `\`${file}\` (line ${from + 2 + found})`
}
