/** What a task's exit code means. */
export const Exit = { held: 0, checkFailed: 1, usage: 2, labCouldNotRun: 3 } as const
export type ExitCode = (typeof Exit)[keyof typeof Exit]

/** Details that help the reader of a failure; each is printed on a separate line. */
export interface FailureDetail {
  /** What to do about it, one line. */
  hint?: string
  /** Exit code of the task; default 3 (the lab itself could not run). */
  exit?: ExitCode
  /** Where to find the evidence: a path, or the last few lines of a log. */
  evidence?: string
  /** The command that replays what failed. */
  replay?: string
  cause?: unknown
}

/**
 * An expected failure: printed as one line and a hint, never with a stack. Anything else that is
 * thrown is a bug and keeps its stack.
 */
export class Failure extends Error {
  readonly detail: FailureDetail

  constructor(message: string, detail: FailureDetail = {}) {
    super(message, { cause: detail.cause })
    this.name = 'Failure'
    this.detail = detail
  }

  get exit(): ExitCode {
    return this.detail.exit ?? Exit.labCouldNotRun
  }
}

/** For `catch`: answers an expected failure. Anything else is a bug and is rethrown. */
export const onFailure =
  <T>(answer: (failure: Failure) => T) =>
  (thrown: unknown): T => {
    if (thrown instanceof Failure) return answer(thrown)
    throw thrown
  }

/** The same for synchronous work. */
export function attempt<T, U>(work: () => T, answer: (failure: Failure) => U): T | U {
  try {
    return work()
  } catch (thrown) {
    return onFailure(answer)(thrown)
  }
}

/** A wrong argument: exit code 2. */
export const usage = (message: string, hint?: string): Failure =>
  new Failure(message, { hint, exit: Exit.usage })

const beside = new WeakMap<object, unknown[]>()

/** Joins several failures: returns the first, and `explain` prints the others after it. */
export function together([first, ...others]: unknown[]): unknown {
  if (typeof first === 'object' && first !== null) beside.set(first, others)
  return first
}

/** The text that a task prints for anything thrown, prefixed with the task's name. */
export function explain(task: string, thrown: unknown): string {
  const others = (typeof thrown === 'object' && thrown !== null && beside.get(thrown)) || []
  return [explainOne(task, thrown), ...others.map((other) => explainOne('also', other))].join('\n')
}

function explainOne(task: string, thrown: unknown): string {
  if (!(thrown instanceof Failure)) {
    const stack = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)
    return `${task}: This is a bug in the lab\n${stack}`
  }
  const { hint, evidence, replay } = thrown.detail
  return [
    `${task}: ${oneLine(thrown.message)}`,
    hint && `  hint: ${hint}`,
    evidence && `  evidence: ${evidence.trimEnd().replaceAll('\n', '\n    ')}`,
    replay && `  replay: ${replay}`,
  ]
    .filter(Boolean)
    .join('\n')
}

/**
 * Keeps an error on one readable line: escapes newlines, terminal escapes, and blanks that look like others or are
 * invisible, all of which text from outside may contain.
 */
export const oneLine = (text: string): string =>
  text.replace(/[\p{Cc}\p{Cf}]|[^\S ]/gu, (c) => {
    const short = JSON.stringify(c).slice(1, -1)
    return short === c ? `\\u${c.codePointAt(0)!.toString(16).padStart(4, '0')}` : short
  })

const unwritable: Record<string, string> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the quota of this user is used up',
  EROFS: 'the file system is read-only',
}

/** The host's own disk cannot be written, so the failure says nothing about what is being tested. */
export class Unwritable extends Failure {}

/** Errors that a path given by the user can cause; any other file error is a bug. */
const unreachable: Record<string, string> = {
  EACCES: 'this user may not access it',
  ELOOP: 'its symlinks form a loop',
  ENAMETOOLONG: 'its name is too long',
  ENOTDIR: 'a directory in it is a file',
}

/**
 * Turns the error of a full disk, an unusable path or a missing package into a failure; returns anything else
 * unchanged.
 */
export function orUnwritable(thrown: unknown): unknown {
  const { code, path, message } = (thrown ?? {}) as NodeJS.ErrnoException
  const [, lacking] = /^Cannot find (?:package|module) '([^'./][^']*)'/.exec(message ?? '') ?? []
  if (lacking !== undefined && code?.endsWith('MODULE_NOT_FOUND'))
    return new Failure(`Cannot find the package \`${lacking}\``, { hint: 'npm ci', cause: thrown })
  const why = unwritable[code ?? '']
  const wrong = unreachable[code ?? '']
  if (wrong && path !== undefined && !(thrown instanceof Failure))
    return new Failure(`Cannot use \`${path}\`: ${wrong}`, { cause: thrown })
  if (!why || thrown instanceof Failure) return thrown
  return new Unwritable(`Cannot write${path ? ` \`${path}\`` : ''}: ${why}`, {
    hint: 'just status says how much each VM takes; LAB_HOME and LAB_CACHE can be on another file system',
    cause: thrown,
  })
}
