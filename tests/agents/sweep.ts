/**
 * Sweeps: an agent's writes fail, call by call, with one error after the other. They take long, so the suite runs
 * a sample. The full sweeps are run by hand:
 *
 *     LAB_SWEEP=matrix.tsv npx vitest run tests/agents/full-disk.test.ts
 *     LAB_SWEEP=matrix.tsv npx vitest run tests/agents/full-dotfiles.test.ts
 *     LAB_SWEEP=matrix.tsv npx vitest run tests/agents/full-golden.test.ts
 *
 * They write one line per case to the file: what failed, in which phase, how the run ended, how the next ones did,
 * and what was wrong after them. LAB_SWEEP_ERRORS=ENOSPC,EIO,EDQUOT,EROFS,SIGKILL names the errors (default ENOSPC),
 * LAB_SWEEP_PHASES=fetch,push selects calls of these phases, and LAB_SWEEP_STRIDE=5 every fifth case, beginning with
 * the one numbered LAB_SWEEP_START (default 1). With an even stride all cases are single failures, or all lasting ones.
 */
import { appendFileSync, writeFileSync } from 'node:fs'
import type { Failing, Write } from './full.ts'

const matrix = process.env['LAB_SWEEP']
const number = (name: string): number => Number(process.env[name] ?? 1)
const phases = process.env['LAB_SWEEP_PHASES']?.split(',')
const errors = (process.env['LAB_SWEEP_ERRORS'] ?? 'ENOSPC').split(',')

/** The reason why no sweep runs, for `context.skip`; undefined if one was requested. */
export const noSweep = (file: string): string | undefined =>
  matrix
    ? undefined
    : `a sweep takes an hour; to run it: LAB_SWEEP=matrix.tsv npx vitest run ${file}`

/** The cases of a sweep that the settings select; none without LAB_SWEEP. */
export const swept = <T>(cases: readonly T[]): T[] =>
  matrix
    ? cases.filter(
        (_, index) =>
          index + 1 >= number('LAB_SWEEP_START') &&
          (index + 1 - number('LAB_SWEEP_START')) % number('LAB_SWEEP_STRIDE') === 0,
      )
    : []

/**
 * Failures to try: the first call of each kind, alone and with all later calls. Calls of one kind have the same
 * phase and program, and paths that differ only in numbers, hashes and random parts.
 */
export function failings(writes: readonly Write[]): Failing[] {
  const kinds = new Map<string, Write>()
  for (const write of writes) {
    if (phases && !phases.includes(write.phase)) continue
    const path = write.path
      .replace(/objects\/[0-9a-f]{2}(\/.*)?$/, 'objects/')
      .replace(/\.tmp[A-Za-z0-9]{6}$/, '.tmp')
      .replace(/\/Cu[A-Za-z0-9]{6}$/, '/Cu')
      .replace(/[0-9a-z]{32,}/, '')
      .replace(/\d+/g, '0')
    const kind = [write.phase, write.program, write.call, path].join(' ')
    if (!kinds.has(kind)) kinds.set(kind, write)
  }
  return [...kinds.values()].flatMap(({ number: first }) =>
    errors.flatMap((error) =>
      // a process can be killed only once
      (error === 'SIGKILL' ? [1] : [1, 1e9]).map((times) => ({ first, times, error })),
    ),
  )
}

/** Whether a run could not even remove its old status, so that only its exit code shows how it ended. */
export const cannotRemoveStatus = (writes: readonly Write[]): boolean =>
  writes.some(
    ({ failed, call, path }) =>
      failed && call.startsWith('unlink') && path.endsWith('/status.json'),
  )

/** The name of a case in the matrix. */
export const called = ({ error = 'ENOSPC', times }: Failing, write: Write): string =>
  `${error} ${times === 1 ? 'at' : 'from'} ${write.number}, ${write.phase}: ${write.program} ${write.call} ${write.path}`

if (matrix) writeFileSync(matrix, 'fault\tphase\tfirst run\tnext runs\twrong\n')

/** Appends a case to the matrix, if there is one. */
export function note(...columns: string[]): void {
  if (matrix) appendFileSync(matrix, `${columns.join('\t').replaceAll('\n', ' ')}\n`)
}
