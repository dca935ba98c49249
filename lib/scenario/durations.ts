import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { usage } from '../failure.ts'
import { labHome } from '../settings.ts'
import { writeFile } from '../write-file.ts'

/** Seconds by `<family>/<case>` and `prove/<control>`. */
export type Seconds = Record<string, number>

/** What ships: one run of all cases, two VMs side by side on two cores under TCG. */
const guess = JSON.parse(
  readFileSync(join(import.meta.dirname, 'durations.json'), 'utf8'),
) as Seconds

const file = (): string => join(labHome(), 'durations.json')

/** Seconds that each took when it last passed on this machine; else the first guess. */
export const durations = (): Seconds => ({ ...guess, ...kept() })

/**
 * Seconds that the parts of a run are dealt out by. What this machine has seen itself does not count: the
 * parts run on several machines, which have to come to the same.
 * @param path of seconds that beat those that ship, as `just merge-runs` writes them
 * @throws Failure (usage) when it cannot be read
 */
export function sharedDurations(path: string | undefined): Seconds {
  if (path === undefined) return guess
  try {
    return { ...guess, ...read(path) }
  } catch (cause) {
    throw usage(
      `Cannot read seconds by case from \`${path}\`: ${(cause as Error).message}`,
      'just merge-runs writes such a file, durations.json',
    )
  }
}

/** A case that nobody has timed takes a third of its limit, as most others do. */
export const guessed = (limit: number): number => limit / 3

function kept(): Seconds {
  try {
    return read(file())
  } catch {
    // none yet, or damaged: an estimate is worth no failure
    return {}
  }
}

function read(path: string): Seconds {
  const known: unknown = JSON.parse(readFileSync(path, 'utf8'))
  if (typeof known !== 'object' || known === null) throw new Error('it holds no object')
  const seconds = Object.entries(known as Seconds).filter(([, each]) => each > 0)
  return Object.fromEntries(seconds)
}

/** Keeps how long one took, for the next run. */
export function remember(name: string, seconds: number): void {
  const all = { ...kept(), [name]: Math.round(seconds * 10) / 10 }
  try {
    privateDirectory(labHome())
    writeFile(file(), `${JSON.stringify(all, null, 2)}\n`, { over: 'any', mode: 0o600 })
  } catch {
    // as on a full disk, which is said where it matters
  }
}
