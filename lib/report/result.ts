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

/** What a case came to. `error`: the lab itself could not run it. */
export type CaseState = 'passed' | 'failed' | 'skipped' | 'error'

export interface CaseResult {
  family: string
  case: string
  title: string
  hosts: string[]
  state: CaseState
  /** Why it is not passed. */
  reason: string
  seconds: number
  seed: number
  checks: CheckRow[]
  oracle: (OracleRow & { host: string })[]
  /** The command that runs it again. */
  replay: string
  /** Directory of its evidence, where there is some. */
  evidence?: string
}

/** What a run came to. */
export interface Ran {
  /** The run's directory. */
  dir: string
  hosts: string[]
  results: CaseResult[]
}

/** How plans and durations call a case. */
export const nameOf = (one: Pick<CaseResult, 'family' | 'case'>): string =>
  `${one.family}/${one.case}`

/** Results in the order of a plan, which does not depend on what ended when. */
export const inOrder = (results: CaseResult[], names: string[]): CaseResult[] =>
  results.toSorted((a, b) => names.indexOf(nameOf(a)) - names.indexOf(nameOf(b)))

/** A case that passes its own steps and fails the oracle has failed; one that checked nothing, too. */
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

/** The run's last word: an error of the lab is worse than a failed case. */
export const worst = (results: CaseResult[]): CaseState => {
  const states = results.map(({ state }) => state)
  for (const state of ['error', 'failed', 'passed'] as const)
    if (states.includes(state)) return state
  return 'skipped'
}
