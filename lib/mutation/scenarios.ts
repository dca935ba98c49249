import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { Failure } from '../failure.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'
import { runControls } from '../scenario/control-run.ts'
import { anyCheck, type Control } from '../scenario/control.ts'
import { durations } from '../scenario/durations.ts'
import type { Family } from '../scenario/family.ts'
import { choose } from '../scenario/run.ts'
import { project } from '../settings.ts'
import { keptTraces } from './guest.ts'
import { mutated, told, type Mutant } from './mutant.ts'
import type { Judged } from './tally.ts'
import type { Verdict } from './verdicts.ts'

export interface Given {
  /** The only cases to run with mutants. */
  cases?: string[]
  /** Maximum number of cases to run for a mutant, in the order of `casesFor`. */
  most?: number
  hosts?: string[]
  seed: number
  json?: boolean
}

/** The families of scenarios that run an agent, by its name. */
const familiesOf: [RegExp, string[]][] = [
  [/chezmoi/, ['concurrent-edits', 'full-workflow']],
  [/golden|boot-status/, ['break-boot', 'auto-upgrade', 'full-workflow']],
  [/./, ['auto-upgrade', 'break-boot', 'chaos-network', 'full-workflow']],
]

/**
 * The cases that may notice a mutant. Traced cases that run its lines come first; traced cases that do not are left
 * out. The first ones are ordered by how specific a case is to that place: it runs lines near it that few others run.
 * For 165 controls, whose case was chosen by hand, that case came first for 31 % (10 % if sorted by duration) and among
 * the first three for 50 % (25 %).
 * @param traces lines of the agents that cases have run, as far as `just coverage --case` has traced the present agents
 */
export function casesFor(
  mutant: Mutant,
  known: Family[],
  given?: string[],
  traces = keptTraces(),
): string[] {
  if (given) return choose(known, given).map(({ family, one }) => `${family.name}/${one.name}`)
  const [, names] = familiesOf.find(([pattern]) => pattern.test(mutant.agent))!
  const took = durations()
  const file = basename(mutant.file)
  const linesOf = (named: string): number[] | undefined => {
    const hits = traces.get(named)?.[file]
    return hits && Object.keys(hits).map(Number)
  }
  const nearness = nearnessTo(mutant, [...traces.keys()].map(linesOf))
  return known
    .filter(({ name }) => names.includes(name))
    .flatMap(({ name, cases }) => cases.map((one) => `${name}/${one.name}`))
    .map((named) => ({ named, lines: linesOf(named) }))
    .filter(({ lines }) => !lines || ran(mutant, lines))
    .map(({ named, lines = [] }) => ({ named, near: nearness(lines) }))
    .toSorted(
      (a, b) => b.near - a.near || (took[a.named] ?? Infinity) - (took[b.named] ?? Infinity),
    )
    .map(({ named }) => named)
}

const ran = ({ lines: [from, to] }: Mutant, lines: number[]): boolean =>
  lines.some((line) => from <= line && line <= to)

/**
 * How specific a case is to a mutant's place, by the lines of the agent that it has run: a line counts less the more
 * cases run it, and half as much for every 16 lines of distance.
 * @param all lines of every traced case
 */
function nearnessTo(
  { lines: [from] }: Mutant,
  all: (number[] | undefined)[],
): (lines: number[]) => number {
  const times = new Map<number, number>()
  for (const line of all.flatMap((lines) => lines ?? []))
    times.set(line, (times.get(line) ?? 0) + 1)
  const weight = (line: number): number =>
    2 ** (-Math.abs(line - from) / 16) / (times.get(line) ?? 1)
  return (lines) => lines.reduce((sum, line) => sum + weight(line), 0)
}

/**
 * Runs scenarios against each surviving mutant, case by case, until a check fails. The next cases of all mutants share
 * one run, so the VMs are prepared once for all of them.
 */
export async function meetScenarios(
  judged: Judged[],
  known: Family[],
  given: Given,
  keep: (verdict: Verdict) => void,
): Promise<Judged[]> {
  const found = new Map(judged.map((one) => [one.id, one]))
  const living = judged
    .filter(({ state }) => state === 'alive' || state === 'not run')
    .map((one) => ({ one, cases: casesFor(one, known, given.cases).slice(0, given.most) }))
  for (let turn = 0; living.some(({ cases }) => turn < cases.length); turn++) {
    const due = living.filter(({ one, cases }) => turn < cases.length && found.get(one.id) === one)
    if (due.length === 0) break
    const controls = await Promise.all(due.map(({ one, cases }) => controlOf(one, cases[turn]!)))
    const options = { name: 'mutate', hosts: given.hosts, seed: given.seed, json: given.json }
    const { proofs, troubles } = await runControls(controls, known, options)
    for (const { control, state, found: by, case: named } of proofs) {
      const one = found.get(control)!
      if (state !== 'caught') continue
      const killed = { ...one, state: 'killed by scenarios' as const, found: `${named}: ${by}` }
      found.set(control, killed)
      const { id, seconds, key } = killed
      keep({ id, state: killed.state, found: killed.found, seconds, key })
    }
    if (troubles.length > 0) throw troubles[0]!
    const broken = proofs.find(({ state }) => state === 'not run')
    if (broken)
      throw new Failure(`Cannot judge \`${broken.control}\` by ${broken.case}`, {
        evidence: broken.found,
      })
  }
  // VMs may have run a line that no test reaches, so `not run` no longer holds
  for (const { one, cases } of living)
    if (cases.length > 0 && found.get(one.id) === one) found.set(one.id, { ...one, state: 'alive' })
  return [...found.values()]
}

/** A mutant as a control for `just prove`: any failing check counts as having noticed it. */
export async function controlOf(mutant: Mutant, named: string): Promise<Control> {
  const text = readFileSync(join(project, mutant.file), 'utf8')
  const scratch = scratchDirectory('mutant')
  try {
    const [before, after] = [join(scratch, 'before'), join(scratch, 'after')]
    writeFileSync(before, text)
    writeFileSync(after, mutated(text, mutant))
    const labels = ['--label', `a/${mutant.file}`, '--label', `b/${mutant.file}`]
    const { stdout: patch } = await run('diff', ['-u', ...labels, before, after], { allow: [1] })
    const again = `mutate --mutant ${mutant.id} --scenarios --case ${named}`
    const control = { name: mutant.id, cut: told(mutant), case: named, patch, argument: mutant.id }
    return { ...control, red: anyCheck, again }
  } finally {
    rmSync(scratch, { recursive: true })
  }
}
