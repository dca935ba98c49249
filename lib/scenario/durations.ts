import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { labHome } from '../settings.ts'
import { writeFile } from '../write-file.ts'

/** Seconds by `<family>/<case>` and `prove/<control>`. */
type Seconds = Record<string, number>

/** What ships: one run of all cases, two VMs side by side on two cores under TCG. */
const guess = JSON.parse(
  readFileSync(join(import.meta.dirname, 'durations.json'), 'utf8'),
) as Seconds

const file = (): string => join(labHome(), 'durations.json')

/** Seconds that each took when it last passed on this machine; else the first guess. */
export const durations = (): Seconds => ({ ...guess, ...kept() })

function kept(): Seconds {
  try {
    const known = JSON.parse(readFileSync(file(), 'utf8')) as Seconds
    return Object.fromEntries(Object.entries(known).filter(([, seconds]) => seconds > 0))
  } catch {
    // none yet, or damaged: an estimate is worth no failure
    return {}
  }
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
