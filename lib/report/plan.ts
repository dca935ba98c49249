import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Failure, orUnwritable } from '../failure.ts'
import { project } from '../settings.ts'
import { writeFile } from '../write-file.ts'
import type { Shard } from './shard.ts'

/**
 * What a run was asked to do, written to its `run.json` at the beginning. With it the records of several runs
 * can be merged, and the cases that none of them ran are known.
 */
export interface Plan {
  /** Name of the run, such as `gitops`. */
  name: string
  hosts: string[]
  /** Names of the VMs in the events of merged runs; in a single run VMs have the names of their hosts. */
  lanes?: string[]
  seed: number
  /** The commits that the guests deploy; their ids depend only on the files in them. */
  flake: string
  dotfiles: string
  /** Hash of the lab's own sources. */
  lab: string
  /** Accelerator and guest, as one line. */
  ground: string
  /**
   * The upgrade mechanism that was judged: its kind, its title in tables, and what it promises. `asked` is the name by
   * which the user had it judged in place of the hosts' own.
   */
  subject?: { kind: string; title: string; promises: string[]; asked?: string }
  /** Which part of a larger run this run was. */
  shard?: Shard
  /** Every requested case, in the order of the tables, as `<family>/<case>` or `prove/<control>`. */
  asked: string[]
  /** The requested cases that fall to this run. */
  cases: string[]
  /** Set at the end of a run, unless it was cut short: what the lab could not do after its cases. */
  ended?: { troubles: string[] }
}

/** Writes the `run.json` of a run. */
export const writePlan = (dir: string, plan: Plan): void => keepRecord(dir, 'run.json', plan)

/** Writes a file of a record, whole or not at all. Ignores a full disk: the final reports will tell of it. */
export function keepRecord(dir: string, file: string, value: unknown): void {
  try {
    writeFile(join(dir, file), `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600, over: 'any' })
  } catch (thrown) {
    if (!(orUnwritable(thrown) instanceof Failure)) throw thrown
  }
}

/** Hash of the lab's own sources: its programs and its Nix modules. */
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
