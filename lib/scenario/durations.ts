import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { usage } from '../failure.ts'
import { labHome } from '../settings.ts'
import { writeFile } from '../write-file.ts'

/** Seconds by `<family>/<case>` and `prove/<control>`. */
export type Seconds = Record<string, number>

/** The times that ship with the lab: one run of all cases, two VMs side by side on two cores under TCG. */
const guess = JSON.parse(
  readFileSync(join(import.meta.dirname, 'durations.json'), 'utf8'),
) as Seconds

const file = (): string => join(labHome(), 'durations.json')

/** Seconds that each case took when it last passed on this machine, else the times that ship. */
export const durations = (): Seconds => ({ ...guess, ...kept() })

/**
 * Seconds by which a run is divided into parts. Times measured on this machine do not count: the parts run on several
 * machines, which must all compute the same division.
 * @param path file of seconds that override those that ship, as `just merge-runs` writes it
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

/** Estimate for a case without a recorded time: a third of its limit, like most others. */
export const guessed = (limit: number): number => limit / 3

function kept(): Seconds {
  try {
    return read(file())
  } catch {
    // missing or damaged: not worth a failure for an estimate
    return {}
  }
}

function read(path: string): Seconds {
  const known: unknown = JSON.parse(readFileSync(path, 'utf8'))
  if (typeof known !== 'object' || known === null) throw new Error('it holds no object')
  const seconds = Object.entries(known as Seconds).filter(([, each]) => each > 0)
  return Object.fromEntries(seconds)
}

/** Records how long a case or control took, for the next run. */
export function remember(name: string, seconds: number): void {
  const all = { ...kept(), [name]: Math.round(seconds * 10) / 10 }
  try {
    privateDirectory(labHome())
    writeFile(file(), `${JSON.stringify(all, null, 2)}\n`, { over: 'any', mode: 0o600 })
  } catch {
    // for example on a full disk, which is reported where it matters
  }
}
