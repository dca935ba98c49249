import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Failure, orUnwritable } from '../failure.ts'
import { project } from '../settings.ts'
import { writeFile } from '../write-file.ts'
import type { Shard } from './shard.ts'

/**
 * What a run was to do, as its `run.json` says it from the first moment on: by it the records of several
 * runs are put together, and what none of them did is known.
 */
export interface Plan {
  /** What was called, such as `gitops`. */
  name: string
  hosts: string[]
  /** How the events of merged runs call the VMs, which have their hosts' names in each of them. */
  lanes?: string[]
  seed: number
  /** What the guests deploy: commits that depend on nothing but the files in them. */
  flake: string
  dotfiles: string
  /** Hash of the lab's own sources. */
  lab: string
  /** Accelerator and guest, as one line. */
  ground: string
  /**
   * What upgraded the hosts and was judged, by the name of its kind, in tables, and with what it promises; `asked` is
   * what a person called it, who had it judged in place of what the hosts have.
   */
  subject?: { kind: string; title: string; promises: string[]; asked?: string }
  /** The part that this run was of a greater one. */
  shard?: Shard
  /** Every case that was asked for, in the order of the tables, as `<family>/<case>` or `prove/<control>`. */
  asked: string[]
  /** Those of them that this run was to do. */
  cases: string[]
  /** Set at the end of a run that nobody cut short: what the lab could not do after its cases. */
  ended?: { troubles: string[] }
}

/** Writes what a run is to do. */
export const writePlan = (dir: string, plan: Plan): void => keepRecord(dir, 'run.json', plan)

/** Writes a file of a record, whole or not at all. A disk that is full is told by those who need it. */
export function keepRecord(dir: string, file: string, value: unknown): void {
  try {
    writeFile(join(dir, file), `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600, over: 'any' })
  } catch (thrown) {
    if (!(orUnwritable(thrown) instanceof Failure)) throw thrown
  }
}

/** Hash of what the lab does by itself: its programs and its part of a configuration. */
export function labSources(): string {
  const hash = createHash('sha256')
  for (const part of ['lib', 'nix', 'tasks']) {
    const below = readdirSync(join(project, part), { recursive: true, withFileTypes: true })
    const paths = below.filter((one) => one.isFile()).map((one) => join(one.parentPath, one.name))
    for (const path of paths.toSorted()) {
      hash.update(`\0${path.slice(project.length)}\0`).update(readFileSync(path))
    }
  }
  return hash.digest('hex').slice(0, 12)
}
