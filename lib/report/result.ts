import type { Plan } from './plan.ts'

export interface CheckRow {
  name: string
  held: boolean
  expected: string
  found: string
}

export interface OracleRow {
  name: string
  state: 'ok' | 'failed' | 'n/a'
  expected: string
  /** What was found; for `n/a` the reason. */
  found: string
}

/** The outcome of a case. `error`: the lab itself could not run it. */
export type CaseState = 'passed' | 'failed' | 'skipped' | 'error'

export interface CaseResult {
  family: string
  case: string
  title: string
  hosts: string[]
  state: CaseState
  /** Why it did not pass. */
  reason: string
  seconds: number
  seed: number
  checks: CheckRow[]
  oracle: (OracleRow & { host: string })[]
  /** The command that runs it again. */
  replay: string
  /** Directory of its evidence, if there is any. */
  evidence?: string
}

/** The outcome of a run. */
export interface Ran {
  /** The run's directory. */
  dir: string
  hosts: string[]
  results: CaseResult[]
}

/** The name of a case in plans and durations. */
export const nameOf = (one: Pick<CaseResult, 'family' | 'case'>): string =>
  `${one.family}/${one.case}`

/** The reason given for a requested case that has no result. */
export const notRun = 'it was not run'

/** What a command needs to run a case of a plan as the plan had it. */
type AskedOf = Pick<Plan, 'hosts' | 'seed' | 'subject'>

/**
 * A result for each case of a plan, in the order of the plan and not in that of their ends. A case that was not run,
 * because the run was cut short or hit a bug, is an error: it proves nothing.
 */
export function complete(results: CaseResult[], names: string[], asked: AskedOf): CaseResult[] {
  const there = new Set(results.map(nameOf))
  const missing = names.filter((name) => !there.has(name)).map((name) => notDone(name, asked))
  const place = (one: CaseResult): number => names.indexOf(nameOf(one))
  return [...results, ...missing].toSorted((a, b) => place(a) - place(b))
}

function notDone(name: string, { hosts, seed, subject }: AskedOf): CaseResult {
  const [family = '', one = ''] = name.split('/')
  // controls always judge the lab's own agents, whatever the subject of the plan
  const ofControl = family === 'prove'
  const again = ofControl ? `just prove ${one}` : `just gitops-test --case ${name}`
  return {
    ...{
      family,
      case: one,
      title: 'nobody has run it',
      hosts: [],
      state: 'error',
      seconds: 0,
      seed,
    },
    ...{ reason: notRun, checks: [], oracle: [] },
    replay: [
      again,
      ...hosts.map((host) => `--host ${host}`),
      `--seed ${seed}`,
      ...(ofControl || subject?.asked === undefined ? [] : [`--subject ${subject.asked}`]),
    ].join(' '),
  }
}

/** Marks a case as failed if one of its checks or the oracle failed, or if it checked nothing. */
export function judgeCase(result: CaseResult): void {
  const check = result.checks.find(({ held }) => !held)
  const row = result.oracle.find(({ state }) => state === 'failed')
  const nothing = result.checks.length === 0
  if (!check && !row && !nothing) return
  result.state = 'failed'
  if (check) result.reason = `${check.name}: expected ${check.expected}, found ${check.found}`
  else if (row) {
    result.reason = `oracle: ${[row.host, row.name].filter(Boolean).join(' ')}: expected ${row.expected}, found ${row.found}`
  } else result.reason = 'it checked nothing'
}

/** Results by what a reader counts: a case that was not run has neither failed nor passed. */
export function byState(
  results: CaseResult[],
): Record<'passed' | 'bad' | 'left' | 'skipped', CaseResult[]> {
  const left = results.filter(({ reason }) => reason === notRun)
  const of = (...states: CaseState[]): CaseResult[] =>
    results.filter((one) => states.includes(one.state) && !left.includes(one))
  return { passed: of('passed'), bad: of('failed', 'error'), left, skipped: of('skipped') }
}

/** The worst state in a run: an error of the lab is worse than a failed case. */
export const worst = (results: CaseResult[]): CaseState => {
  const states = results.map(({ state }) => state)
  for (const state of ['error', 'failed', 'passed'] as const)
    if (states.includes(state)) return state
  return 'skipped'
}
