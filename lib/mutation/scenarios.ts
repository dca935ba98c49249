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
import type { Hits } from './trace.ts'
import type { Verdict } from './verdicts.ts'

export interface Given {
  /** The only cases that shall meet mutants. */
  cases?: string[]
  /** Cases that a mutant meets at most, what takes least first. */
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
 * The cases that may notice a mutant: those first that were seen to run its lines, and none that was seen not to;
 * among them what takes least first.
 * @param traces what cases have run of the agents, where `just coverage --case` has traced them as they are now
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
  const runs = (named: string): boolean | undefined => {
    const lines = traces.get(named)?.[basename(mutant.file)]
    return lines && ranLines(mutant, lines)
  }
  return known
    .filter(({ name }) => names.includes(name))
    .flatMap(({ name, cases }) => cases.map((one) => `${name}/${one.name}`))
    .filter((named) => runs(named) !== false)
    .toSorted(
      (a, b) =>
        Number(runs(b) ?? false) - Number(runs(a) ?? false) ||
        (took[a] ?? Infinity) - (took[b] ?? Infinity),
    )
}

const ranLines = ({ lines: [from, to] }: Mutant, ran: Hits[string]): boolean =>
  Object.keys(ran).some((line) => from <= Number(line) && Number(line) <= to)

/**
 * Has the VMs meet each mutant that lives: one case after the other, until one is red by a check. All mutants meet
 * their next case in one run, so the VMs are prepared once for all of them.
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
  // VMs have run what no test reaches
  for (const { one, cases } of living)
    if (cases.length > 0 && found.get(one.id) === one) found.set(one.id, { ...one, state: 'alive' })
  return [...found.values()]
}

/** A mutant as `just prove` takes what it cuts: any check that fails is one that noticed. */
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
