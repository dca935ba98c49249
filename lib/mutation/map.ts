import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'
import { unknown } from '../nearest.ts'
import { labCache, project } from '../settings.ts'
import { writeFile } from '../write-file.ts'
import type { Copy } from './copy.ts'
import { hash, type Mutant } from './mutant.ts'
import { readTraces, traced, type Hits } from './trace.ts'

/** Which lines of the agents one test file runs. */
export interface Traced {
  file: string
  /** Seconds for the whole file, with tracing. */
  seconds: number
  tests: { name: string; seconds: number }[]
  /** Tests that failed in the traced run, without a mutant: they judge none. */
  failed: string[]
  /** By the test's name; what the file runs before its first test is under ''. */
  hits: Record<string, Hits>
}

/** Tests that evaluate the modules. */
const ofModules = ['agents', 'golden', 'modules', 'reachability', 'units'].map(
  (name) => `tests/nix/${name}.test.ts`,
)

/** The test files that run agents in a scratch root, except for the one that tests mutants. */
export const agentTests = (): string[] =>
  readdirSync(join(project, 'tests/agents'))
    .filter((name) => name.endsWith('.test.ts') && name !== 'mutants.test.ts')
    .map((name) => `tests/agents/${name}`)

/**
 * The test files that may judge these mutants.
 * @param given the only ones to use
 * @throws Failure (usage) for one that cannot judge any of them
 */
export function judging(mutants: Mutant[], given?: string[]): string[] {
  const isModule = ({ file }: Mutant): boolean => file.endsWith('.nix')
  const known = [
    ...(mutants.every(isModule) ? [] : agentTests()),
    ...(mutants.some(isModule) ? ofModules : []),
  ]
  for (const file of given ?? [])
    if (!known.includes(file))
      throw unknown('a test file of these agents', file, known, known.join(' '))
  return given ?? known
}

const isOfModules = (file: string): boolean => ofModules.includes(file)
const textOf = (file: string): string => readFileSync(join(project, file), 'utf8')

/** What a test file depends on besides the agents: its own text and that of its imports in tests/. */
export function testText(file: string, seen = new Set<string>()): string {
  if (seen.has(file)) return ''
  seen.add(file)
  const text = textOf(file)
  const imported = [...text.matchAll(/\bfrom '(\.[^']+)'/g)]
    .map(([, path]) => join(dirname(file), path!))
    .filter((path) => path.startsWith('tests/'))
  return [text, ...imported.map((path) => testText(path, seen))].join('\0')
}

/**
 * What each of these test files runs, cached for as long as neither the agents nor the tests change. A test that fails
 * without a mutant judges none, and is named in each run.
 * @throws Failure for a file in which no test passes
 */
export async function traceTests(
  files: string[],
  copy: () => Promise<Copy>,
  say: (line: string) => void,
): Promise<Traced[]> {
  const names = readdirSync(join(project, 'nix/agents')).filter((name) => name.endsWith('.sh'))
  const agents = names.map((name) => textOf(`nix/agents/${name}`)).join('\0')
  const kept = join(labCache(), 'mutation', 'traces')
  mkdirSync(kept, { recursive: true })
  const all: Traced[] = []
  for (const file of files) {
    const about = isOfModules(file) ? modulesText() : agents
    const path = join(kept, `${hash(file, testText(file), about)}.json`)
    if (!existsSync(path)) {
      say(`tracing ${file}`)
      const fresh = await traceOne(file, names, await copy())
      writeFile(path, JSON.stringify(fresh), { over: 'any' })
    }
    const known = JSON.parse(readFileSync(path, 'utf8')) as Traced
    for (const test of known.failed)
      say(`judges no mutant, as it fails without one: ${file}: ${test}`)
    all.push(known)
  }
  return all
}

const modulesText = (): string =>
  readdirSync(join(project, 'nix/modules'))
    .filter((name) => name.endsWith('.nix'))
    .map((name) => textOf(`nix/modules/${name}`))
    .join('\0')

async function traceOne(file: string, agents: string[], copy: Copy): Promise<Traced> {
  const directory = join(labCache(), 'mutation', 'trace')
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { mode: 0o711 })
  const back = isOfModules(file)
    ? []
    : agents.map((name) =>
        copy.lay(`nix/agents/${name}`, traced(name, textOf(`nix/agents/${name}`))),
      )
  try {
    const ran = await copy.test(file, 3600, { env: { LAB_TRACE: directory } })
    const [passed, failed] = [true, false].map((well) =>
      ran.tests.filter((one) => one.passed === well),
    )
    if (ran.state === 'hung' || passed!.length === 0) {
      const hint = `See npx vitest run ${file}`
      const evidence = ran.found
      throw new Failure(`Cannot judge mutants by \`${file}\`: it fails without one`, {
        hint,
        evidence,
      })
    }
    return {
      ...{ file, seconds: ran.seconds, tests: passed!, failed: failed!.map(({ name }) => name) },
      hits: Object.fromEntries(readTraces(directory)),
    }
  } finally {
    for (const undo of back) undo()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** The tests of one file that run a mutant's lines. */
export interface Judges {
  file: string
  tests: string[]
  seconds: number
}

/** The tests that run a mutant's lines, the quickest file first. @param traces of all files that may judge */
export function judgesOf(mutant: Mutant, traces: Traced[]): Judges[] {
  const isModule = mutant.file.endsWith('.nix')
  const name = mutant.file.split('/').at(-1)!
  const runs = (hits: Hits | undefined): boolean =>
    Object.keys(hits?.[name] ?? {}).some(
      (line) => Number(line) >= mutant.lines[0] && Number(line) <= mutant.lines[1],
    )
  return traces
    .flatMap(({ file, tests, hits }): Judges[] => {
      if (isModule !== isOfModules(file)) return []
      // what runs before the first test belongs to all tests
      const own = isModule || runs(hits['']) ? tests : tests.filter((test) => runs(hits[test.name]))
      if (own.length === 0) return []
      const seconds = own.reduce((sum, test) => sum + test.seconds, 0)
      return [{ file, tests: own.map((test) => test.name), seconds }]
    })
    .toSorted((a, b) => a.seconds - b.seconds)
}
