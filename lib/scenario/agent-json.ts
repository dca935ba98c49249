import { Failure } from '../failure.ts'

/**
 * An agent's output that cannot be parsed: a fault of the agent, not of the lab. If a case does not catch it, it
 * becomes a red check of that name.
 */
export class NoJson extends Failure {
  /** What should be JSON. */
  readonly what: string

  constructor(what: string, text: string, cause?: unknown) {
    super(`Cannot read ${what}: it holds no JSON`, { cause, evidence: text })
    this.what = what
  }
}

/**
 * Parses JSON from an agent, for cases and for the oracle.
 * @param what the text is, for the failure and the check
 * @throws NoJson when it is not a JSON object
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- like JSON.parse, the caller names the type
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
