import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'smol-toml'
import { Failure } from '../failure.ts'
import { privateDirectory } from '../directory.ts'
import { labHome, project } from '../settings.ts'
import { writeFile } from '../write-file.ts'
import { hash, type Mutant } from './mutant.ts'
import { testText, type Judges } from './map.ts'

export const states = [
  'killed by tests',
  'killed by scenarios',
  'alive',
  'not run',
  'equivalent',
] as const
export type State = (typeof states)[number]

export interface Verdict {
  id: string
  /** `not run`: no test or case that ran reaches its line, so nothing could have noticed it. */
  state: State
  /** The test or the check that failed; for an equivalent one, the reviewer's reason. */
  found: string
  seconds: number
  /** A hash of what the verdict depends on: the program, and the tests that run the line. */
  key: string
}

export const keyOf = (mutant: Mutant, text: string, judges: Judges[]): string =>
  hash(mutant.id, text, ...judges.map(({ file }) => file + testText(file)))

const file = (): string => join(labHome(), 'mutants.json')

/** The options of a run, for `--resume`. */
export interface Asked {
  agents: string[]
  seed: number
  sample?: number
  /** The ids of mutants given by name. */
  mutants?: string[]
}
interface Kept {
  asked?: Asked
  verdicts: Record<string, Verdict>
}

/** The verdicts of earlier runs; none where there is no file that holds any. */
export function kept(): Kept {
  try {
    const found = JSON.parse(readFileSync(file(), 'utf8')) as Kept | null
    if (found?.verdicts) return found
  } catch {
    // no file yet, or a damaged one
  }
  // every mutant is judged again
  return { verdicts: {} }
}

/** Saves all verdicts; called after each new one. */
export function keep(all: Kept): void {
  privateDirectory(labHome())
  writeFile(file(), `${JSON.stringify(all)}\n`, { over: 'any', mode: 0o600 })
}

const reviewed = 'tests/mutants/equivalent.toml'

interface Reviewed {
  /** The mutant's id, as `just mutate --json` prints it. */
  id: string
  /** What the mutant does, for readers of the file. */
  what: string
  reason: string
}

/**
 * The reasons of reviewed mutants that make no difference, by the mutants' ids.
 * @throws Failure for an entry without an id or a reason
 */
export function equivalents(path = join(project, reviewed)): Map<string, string> {
  if (!existsSync(path)) return new Map()
  const { mutant = [] } = parse(readFileSync(path, 'utf8')) as { mutant?: Partial<Reviewed>[] }
  return new Map(
    mutant.map(({ id, reason }) => {
      if (id && reason) return [id, reason]
      throw new Failure(
        `Cannot use \`${reviewed}\`: the entry ${id ?? 'without an id'} has no reason`,
      )
    }),
  )
}
