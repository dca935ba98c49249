import { Failure } from '../failure.ts'

/**
 * What an agent wrote and nobody can read: the agent's fault, and no fault of the lab. A case that does not
 * catch it has a red check of that name.
 */
export class NoJson extends Failure {
  /** What ought to be JSON. */
  readonly what: string

  constructor(what: string, text: string, cause?: unknown) {
    super(`Cannot read ${what}: it holds no JSON`, { cause, evidence: text })
    this.what = what
  }
}

/**
 * Whatever JSON a case or the oracle has from an agent is read by this.
 * @param what it is, as a failure and a check name it
 * @throws NoJson when it is none, or no object
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as JSON.parse, it is told what to expect
export function agentJson<T extends object>(text: string, what: string): T {
  let found: unknown
  try {
    found = JSON.parse(text)
  } catch (cause) {
    throw new NoJson(what, text, cause)
  }
  if (typeof found !== 'object' || found === null) throw new NoJson(what, text)
  return found as T
}
