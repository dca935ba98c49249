import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { usage } from '../failure.ts'
import { labHome } from '../settings.ts'
import { difference, readPart, type Part } from './merge.ts'
import type { Plan } from './plan.ts'
import { nameOf } from './result.ts'

/**
 * Finds the run that `--resume` carries on, and prints which one it is.
 * @param names the names that such a run may have
 * @param given the task's other arguments; the run has already fixed some of these
 * @throws Failure (usage) if there is no such run, or if an argument that it has fixed is given again
 */
export function toCarryOn(names: string[], given: Record<string, unknown>): Part {
  const decided = ['family', 'control', 'host', 'case', 'shard', 'durations', 'seed', 'subject']
  const anew = decided.find((one) => given[one] !== undefined && !isEmpty(given[one]))
  if (anew !== undefined) {
    throw usage(
      `Cannot use ${/family|control/.test(anew) ? `a ${anew}` : `--${anew}`} with --resume`,
      'The run that is carried on has already fixed this: leave it out',
    )
  }
  const part = lastCutShort(names)
  const { cases } = part.plan
  const done = cases.length - leftOf(part).length
  console.error(`Carrying on ${part.dir}: ${done} of ${cases.length} have a result`)
  return part
}

const isEmpty = (value: unknown): boolean => Array.isArray(value) && value.length === 0

/**
 * The last run that was cut short, by Ctrl-C or by a crash, with the results that remain valid: those of cases that
 * the lab could not run are left out.
 * @param names the names that such a run may have
 * @throws Failure (usage) if there is no such run
 */
export function lastCutShort(names: string[]): Part {
  const runs = join(labHome(), 'runs')
  const ids = existsSync(runs) ? readdirSync(runs).toSorted().toReversed() : []
  for (const id of ids) {
    if (!existsSync(join(runs, id, 'run.json'))) continue
    const part = readPart(join(runs, id))
    if (part.plan.ended || !names.includes(part.plan.name)) continue
    return { ...part, results: part.results.filter(({ state }) => state !== 'error') }
  }
  throw usage('Cannot carry on: no run here was cut short', 'Leave out --resume to run everything')
}

/** The cases of a run that have no result yet. */
export const leftOf = ({ plan, results }: Part): string[] => {
  const done = new Set(results.map(nameOf))
  return plan.cases.filter((name) => !done.has(name))
}

/**
 * The plan of a run that is carried on.
 * @param now the plan that the run would have if it began now
 * @throws Failure (usage) if the earlier results do not apply to what would run now
 */
export function carriedOn(before: Part, now: Plan): Plan {
  const apart = difference(before.plan, now)
  if (apart) {
    throw usage(
      `Cannot carry on \`${before.dir}\`: what it ran and what would run now are of different ${apart}`,
      'The earlier results do not apply to what would run now: leave out --resume to run everything',
    )
  }
  const grounds = new Set([...before.plan.ground.split('; '), ...now.ground.split('; ')])
  return { ...before.plan, ground: [...grounds].join('; ') }
}
