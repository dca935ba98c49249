/**
 * Sweeps: what an agent writes fails, call by call, with one error after the other. They take long, so the suite
 * has a sample, and by hand there are
 *
 *     LAB_SWEEP=matrix.tsv npx vitest run tests/agents/full-disk.test.ts
 *     LAB_SWEEP=matrix.tsv npx vitest run tests/agents/full-dotfiles.test.ts
 *     LAB_SWEEP=matrix.tsv npx vitest run tests/agents/full-golden.test.ts
 *
 * which write a line a case to the file: what failed, in which phase, how the run ended, how the next ones did, and
 * what was wrong after them. LAB_SWEEP_ERRORS=ENOSPC,EIO,EDQUOT,EROFS,SIGKILL names the errors (default ENOSPC),
 * LAB_SWEEP_PHASES=fetch,push takes calls of these phases only, LAB_SWEEP_STRIDE=5 each fifth case only, from the one
 * that LAB_SWEEP_START names on (default 1). An even stride has single failures alone, or only those that last.
 */
import { appendFileSync, writeFileSync } from 'node:fs'
import type { Failing, Write } from './full.ts'

const matrix = process.env['LAB_SWEEP']
const number = (name: string): number => Number(process.env[name] ?? 1)
const phases = process.env['LAB_SWEEP_PHASES']?.split(',')
const errors = (process.env['LAB_SWEEP_ERRORS'] ?? 'ENOSPC').split(',')

/** Why there is no sweep, for `context.skip`; undefined where one was asked for. */
export const noSweep = (file: string): string | undefined =>
  matrix
    ? undefined
    : `a sweep takes an hour; to run it: LAB_SWEEP=matrix.tsv npx vitest run ${file}`

/** Those cases of a sweep that the settings ask for; none without LAB_SWEEP. */
export const swept = <T>(cases: readonly T[]): T[] =>
  matrix
    ? cases.filter(
        (_, index) =>
          index + 1 >= number('LAB_SWEEP_START') &&
          (index + 1 - number('LAB_SWEEP_START')) % number('LAB_SWEEP_STRIDE') === 0,
      )
    : []

/**
 * What can fail: the first call of each kind, alone and with all that come after it. Calls of a kind are of one
 * phase and program, at paths that differ in numbers, hashes and what is made up by chance.
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
      // who is killed fails once
      (error === 'SIGKILL' ? [1] : [1, 1e9]).map((times) => ({ first, times, error })),
    ),
  )
}

/** Whether a run could not even remove its last status, so that none but its exit code tells of its end. */
export const cannotRemoveStatus = (writes: readonly Write[]): boolean =>
  writes.some(
    ({ failed, call, path }) =>
      failed && call.startsWith('unlink') && path.endsWith('/status.json'),
  )

/** How a case is called in the matrix. */
export const called = ({ error = 'ENOSPC', times }: Failing, write: Write): string =>
  `${error} ${times === 1 ? 'at' : 'from'} ${write.number}, ${write.phase}: ${write.program} ${write.call} ${write.path}`

if (matrix) writeFileSync(matrix, 'fault\tphase\tfirst run\tnext runs\twrong\n')

/** Writes a case to the matrix, if there is one. */
export function note(...columns: string[]): void {
  if (matrix) appendFileSync(matrix, `${columns.join('\t').replaceAll('\n', ' ')}\n`)
}
