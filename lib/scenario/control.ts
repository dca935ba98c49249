import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { Exit, Failure, usage } from '../failure.ts'
import { git, type Changes } from './remote.ts'
import type { CaseResult } from '../report/result.ts'
import { pasted } from '../quote.ts'
import { project } from '../settings.ts'
import { scratchDirectory } from '../scratch.ts'

/**
 * A safety net of the agents cut on purpose: a patch whose head says what it cuts, which case must come out red, and
 * which check must show it.
 */
export interface Control {
  name: string
  /** What is cut, one line. */
  cut: string
  /** `<family>/<case>`. */
  case: string
  /** Matches the name of a check or of a row of the oracle that must fail. */
  red: RegExp
  patch: string
  /** The command line argument that names it. */
  argument: string
  /** The recipe and arguments that run it again, if not `just prove`. */
  again?: string
}

const dir = join(project, 'tests/controls')

/** Matches any check: the pattern of a patch that does not say which one must fail. */
export const anyCheck = new RegExp('')

/** All controls, sorted by name. @throws Failure for one with an incomplete head */
export const controls = (): Control[] =>
  readdirSync(dir)
    .filter((file) => file.endsWith('.patch'))
    .toSorted()
    .map((file) =>
      readControl(file.slice(0, -'.patch'.length), readFileSync(join(dir, file), 'utf8')),
    )

export const isPatchFile = (argument: string): boolean =>
  argument.includes('/') || argument.endsWith('.patch')

/**
 * Reads a control from any patch file, with or without a head. Without `Red:`, any failed check will do.
 * @param named the case, in place of the head's
 * @throws Failure (usage) when the file cannot be read or names no case
 */
export function controlFrom(path: string, named: string | undefined): Control {
  let patch: string
  try {
    patch = readFileSync(path, 'utf8')
    // saved by a Windows editor; the agents have no CRLF line ends
    if (!/(?<!\r)\n/.test(patch)) patch = patch.replaceAll('\r\n', '\n')
  } catch (cause) {
    const why =
      (cause as NodeJS.ErrnoException).code === 'ENOENT'
        ? 'there is no such file'
        : (cause as Error).message
    throw usage(
      `Cannot read the patch \`${path}\`: ${why}`,
      'just prove --list names the controls that are here',
    )
  }
  // the name is used for directories
  const name = basename(path)
    .replace(/\.patch$/, '')
    .replaceAll(/[^\w.-]/g, '-')
  const own = { Cut: `what ${basename(path)} cuts`, Case: named ?? '', Red: '' }
  const head = (key: keyof typeof own): string => headOf(patch, key) ?? own[key]
  const chosen = named ?? head('Case')
  if (!chosen) {
    throw usage(
      `Cannot use \`${path}\`: it names no case`,
      'Give it --case <family>/<case>, or a line `Case: <family>/<case>` above the diff',
    )
  }
  const control = { name, cut: head('Cut'), case: chosen, patch, argument: resolve(path) }
  const red = head('Red')
  return { ...control, red: red ? pattern(path, red) : anyCheck }
}

/** Reads a control of the project from its patch. @throws Failure for an incomplete head */
export function readControl(name: string, patch: string): Control {
  const head = (key: string): string => {
    const value = headOf(patch, key)
    if (value) return value
    throw new Failure(`Cannot use the control \`${name}\`: its head has no \`${key}:\``)
  }
  const control = { name, cut: head('Cut'), case: head('Case'), patch, argument: name }
  return { ...control, red: pattern(name, head('Red')) }
}

const headOf = (patch: string, key: string): string | undefined =>
  new RegExp(`^${key}: (.+)$`, 'm').exec(patch.split(/^(?:diff |--- )/m)[0] ?? '')?.[1]?.trim()

/** @throws Failure (usage) for an invalid pattern */
function pattern(name: string, text: string): RegExp {
  try {
    return new RegExp(text)
  } catch (cause) {
    throw usage(
      `Cannot use \`${name}\`: its \`Red:\` is not a valid pattern: ${(cause as Error).message}`,
    )
  }
}

/**
 * The files that a control changes, with its patch applied.
 * @param read reads a file of the tree to cut; undefined if the file does not exist
 * @throws Failure (usage) when the patch does not fit, or is not a patch
 */
export async function cutFiles(
  control: Control,
  read: (path: string) => Promise<string | undefined>,
): Promise<Changes> {
  // git writes a tab after a name with a space; diff writes a tab and a time after every name
  const heads = control.patch.matchAll(/^--- ([^\t\n]+).*\n\+\+\+ ([^\t\n]+)/gm)
  const files = [...heads].map(([, from, to]) => ({
    path: (to === '/dev/null' ? from! : to!).replace(/^[ab]\//, ''),
    isNew: from === '/dev/null',
    isGone: to === '/dev/null',
  }))
  if (files.length === 0)
    throw usage(
      `Cannot use the control \`${control.name}\`: it cuts nothing`,
      'It must be a patch in the form that `git diff` writes',
    )
  const scratch = scratchDirectory('control')
  try {
    for (const { path, isNew } of files) {
      const text = await read(path)
      if (text === undefined && !isNew) throw stale(control, `there is no \`${path}\``)
      mkdirSync(dirname(join(scratch, path)), { recursive: true })
      if (text !== undefined) writeFileSync(join(scratch, path), text)
    }
    writeFileSync(join(scratch, '.cut.patch'), control.patch)
    // inside another repository git would skip the files of the scratch directory
    const env = { GIT_CEILING_DIRECTORIES: dirname(scratch) }
    const apply = (...flags: string[]): Promise<string> =>
      git(['-C', scratch, 'apply', ...flags, '.cut.patch'], { env })
    // a patch that was edited by hand may state wrong line counts
    await apply()
      .catch(() => apply('--recount'))
      .catch((cause: Failure) => {
        throw stale(control, cause.detail.evidence ?? cause.message)
      })
    return Object.fromEntries(
      files.map(({ path, isGone }) => [
        path,
        isGone ? null : readFileSync(join(scratch, path), 'utf8'),
      ]),
    )
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

const stale = ({ name, argument }: Control, why: string): Failure =>
  new Failure(`Cannot cut the net of \`${name}\`: its patch does not fit`, {
    evidence: why,
    exit: Exit.usage,
    hint: `Make ${name === argument ? `tests/controls/${name}.patch` : argument} anew`,
  })

export interface Proof {
  control: string
  cut: string
  case: string
  hosts: string[]
  seed: number
  /** Whether the case came out red, and by the check that had to fail. */
  state: 'caught' | 'stayed green' | 'red for another reason' | 'not run'
  /** What was red. */
  found: string
  seconds: number
  /** The command that runs it again. */
  replay: string
  /** Directory of its evidence, if there is any. */
  evidence?: string
}

/** A verdict in the form of a run's report. @param red the check that had to be red */
export function resultOf(proof: Proof, red: RegExp): CaseResult {
  const { control, cut, case: ofCase, hosts, seed, state, found, seconds, replay, evidence } = proof
  const caught = state === 'caught'
  return {
    ...{ family: 'prove', case: control, title: `without ${cut}, ${ofCase} comes out red` },
    ...{ hosts, seconds, seed, oracle: [], replay, evidence },
    state: caught ? 'passed' : state === 'not run' ? 'error' : 'failed',
    reason: caught ? '' : `${state}: ${found}`,
    checks: [{ name: 'red by', held: caught, expected: String(red), found }],
  }
}

/** The command that runs a control again. */
export const replayOfControl = (control: Control, hosts: string[], seed: number): string =>
  [
    ...(control.again
      ? [`just ${control.again}`]
      : [
          `just prove ${pasted(control.argument)}`,
          ...(control.argument === control.name ? [] : [`--case ${control.case}`]),
        ]),
    ...hosts.map((host) => `--host ${host}`),
    `--seed ${seed}`,
  ].join(' ')

/**
 * A control is caught when a check that it names failed. A green case means that the lab does not test this net. Only
 * checks count: a wait that timed out may have any reason, so by itself it proves nothing.
 */
export function judgeControl(control: Control, result: CaseResult): Proof {
  const red = [
    ...result.checks.filter(({ held }) => !held).map(({ name, found }) => ({ name, found })),
    ...result.oracle
      .filter(({ state }) => state === 'failed')
      .map(({ name, host, found }) => ({ name: oracleName(host, name), found })),
  ]
  const hit = red.find(({ name }) => control.red.test(name))
  const { hosts, seed, seconds, evidence } = result
  const state = (): Proof['state'] => {
    if (result.state === 'passed') return 'stayed green'
    if (result.state !== 'failed' || red.length === 0) return 'not run'
    return hit ? 'caught' : 'red for another reason'
  }
  return {
    ...{ control: control.name, cut: control.cut, case: control.case, hosts, seed, seconds },
    state: state(),
    found: hit ? [hit.name, hit.found].filter(Boolean).join(': ') : result.reason,
    replay: replayOfControl(control, hosts, seed),
    evidence,
  }
}

const oracleName = (host: string, row: string): string => `oracle ${host} ${row}`

/**
 * Whether another run is needed. A verdict other than caught or green may be the lab's own fault, so it must come
 * twice in a row. The same holds for a catch by an arbitrary check, when the control names none.
 * @param tries the verdicts so far, at least one
 * @param red which checks must fail
 */
export function undecided(tries: Proof[], red?: RegExp): boolean {
  const [last, before] = tries.toReversed()
  const sure = ['stayed green', ...(red === anyCheck ? [] : ['caught'])]
  if (tries.length === 1) return !sure.includes(last!.state)
  return last!.state !== before!.state && tries.length < 3
}

/** The verdict of several runs: that of the last two if they agree, else `not run`. */
export function settle(tries: Proof[]): Proof {
  const [last, before] = tries.toReversed()
  const seconds = tries.reduce((sum, one) => sum + one.seconds, 0)
  if (!before || before.state === last!.state) return { ...last!, seconds }
  const states = tries.map(({ state, found }) => `${state} (${found.split('\n')[0]})`)
  return {
    ...last!,
    seconds,
    state: 'not run',
    found: `it differs from run to run: ${states.join(', ')}`,
  }
}
