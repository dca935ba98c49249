import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, relative } from 'node:path'
import { Failure } from '../failure.ts'
import { lock } from '../lock.ts'
import { killWithin } from '../process.ts'
import { run } from '../run.ts'
import { labCache, project } from '../settings.ts'

/** The result of running one test file. */
export interface TestRun {
  state: 'green' | 'red' | 'hung'
  /** The first test that failed, with its error; or that the file hit the time limit. */
  found: string
  /** Each test that ran: full name, seconds, and whether it passed. */
  tests: { name: string; seconds: number; passed: boolean }[]
  seconds: number
}

/** A copy of the project, because mutants must never be in the working tree. */
export interface Copy {
  /** Overwrites a file in the copy; the returned function restores it. */
  lay: (path: string, text: string) => () => void
  /**
   * Runs one test file in the copy.
   * @param only full names of the tests; default: all of the file
   * @param limit seconds
   * @throws Failure when no test ran
   */
  test: (file: string, limit: number, options?: TestOptions) => Promise<TestRun>
  end: () => Promise<void>
}

export interface TestOptions {
  only?: string[]
  /** Stops at the first test that fails. */
  bail?: boolean
  env?: Record<string, string>
}

const place = (): string => join(labCache(), 'mutation')

/**
 * Makes the copy, in the cache, where the next run removes what a killed run left. Only one run can have it at a time.
 * @throws Failure when another run has it
 */
export async function makeCopy(): Promise<Copy> {
  mkdirSync(place(), { recursive: true })
  const held = await lock(join(place(), 'lock'), 'copy the project for mutants')
  const [tree, scratch] = [join(place(), 'copy'), join(place(), 'tmp')]
  // vitest is killed with this process, but the workers that run its test files are not
  const killTests = (): void => void killWithin(tree)
  killTests()
  process.once('exit', killTests)
  await remove(tree, scratch)
  mkdirSync(scratch, { recursive: true, mode: 0o711 })
  const left = new Set(['.git', '.jj', 'node_modules'])
  const filter = (path: string): boolean => !left.has(relative(project, path))
  cpSync(project, tree, { recursive: true, filter, verbatimSymlinks: true })
  symlinkSync(join(project, 'node_modules'), join(tree, 'node_modules'))
  let ended = false
  return {
    lay: (path, text) => {
      writeFileSync(join(tree, path), text)
      return () => writeFileSync(join(tree, path), readFileSync(join(project, path)))
    },
    test: async (file, limit, options) => {
      const before = performance.now()
      const ran = await runTests(tree, scratch, file, limit, options)
      return { ...ran, seconds: (performance.now() - before) / 1000 }
    },
    end: async () => {
      if (ended) return
      ended = true
      process.off('exit', killTests)
      killTests()
      await remove(tree, scratch)
      held.release()
    },
  }
}

async function runTests(
  tree: string,
  scratch: string,
  file: string,
  limit: number,
  { only, bail = false, env = {} }: TestOptions = {},
): Promise<Omit<TestRun, 'seconds'>> {
  const results = join(scratch, 'results.json')
  rmSync(results, { force: true })
  const vitest = join(project, 'node_modules/vitest/vitest.mjs')
  const named = only && ['-t', `^(${only.map(escaped).join('|')})$`]
  const flags = ['--reporter=json', `--outputFile=${results}`, ...(bail ? ['--bail=1'] : [])]
  const args = [vitest, 'run', '--root', tree, ...flags, ...(named ?? []), file]
  // all labs share one base image
  const cache = process.env['LAB_TEST_CACHE'] ?? labCache()
  try {
    await run('nice', ['-n', '5', process.execPath, ...args], {
      cwd: tree,
      // npm test may leave some tests to other commits; a mutant must meet all
      env: { LAB_TEST_COMMIT: '', LAB_TEST_CACHE: cache, TMPDIR: scratch, ...env },
      timeout: limit,
      allow: [1],
    })
  } catch (error) {
    if (!(error instanceof Failure) || !/took longer/.test(error.message)) throw error
    await remove(scratch)
    mkdirSync(scratch, { mode: 0o711 })
    return {
      state: 'hung',
      found: `${file} did not finish within ${limit.toFixed(0)} s`,
      tests: [],
    }
  }
  if (!existsSync(results)) throw new Failure(`Cannot run \`${file}\`: no result was written`)
  return read(JSON.parse(readFileSync(results, 'utf8')) as Results, file)
}

interface Results {
  testResults: {
    status: string
    message: string
    assertionResults: {
      fullName: string
      status: string
      duration?: number
      failureMessages?: string[]
    }[]
  }[]
}

/** Reads vitest's result for one test file. @throws Failure when no test was run */
export function read({ testResults }: Results, file: string): Omit<TestRun, 'seconds'> {
  const all = testResults.flatMap(({ assertionResults }) => assertionResults)
  const tests = all
    .filter(({ status }) => status === 'passed' || status === 'failed')
    .map((one) => ({
      name: one.fullName,
      seconds: (one.duration ?? 0) / 1000,
      passed: one.status === 'passed',
    }))
  const failed = all.find(({ status }) => status === 'failed')
  // if the setup of a file failed, no single test did
  const whole = testResults.find(({ status, message }) => status === 'failed' && message)
  const red = failed !== undefined || whole !== undefined
  if (!red && tests.length === 0)
    throw new Failure(`Cannot judge by \`${file}\`: no test of it was run`)
  const why = failed?.failureMessages?.[0] ?? whole?.message ?? ''
  const found = [failed?.fullName ?? file, why.split('\n')[0]].join(': ')
  return red ? { state: 'red', found, tests } : { state: 'green', found: '', tests }
}

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\/]/g, '\\$&')

/** Removes files of scratch roots too: unless this runs as root, they belong to ids of a user namespace. */
async function remove(...paths: string[]): Promise<void> {
  const own = process.getuid?.() === 0 ? [] : ['unshare', '--user', '--map-auto', '--map-root-user']
  const [command, ...args] = [...own, 'rm', '-rf', '--', ...paths]
  await run(command!, args)
}
