import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'
import { git, type Changes } from './remote.ts'
import type { CaseResult } from '../report/result.ts'
import { project } from '../settings.ts'

/**
 * A safety net of the agents cut on purpose: a patch with a head that says what it cuts, the case
 * that must come out red by it, and the check by which that has to show.
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
}

const dir = join(project, 'tests/controls')

/** Every control there is, by name. @throws Failure for one whose head is not whole */
export const controls = (): Control[] =>
  readdirSync(dir)
    .filter((file) => file.endsWith('.patch'))
    .toSorted()
    .map((file) =>
      readControl(file.slice(0, -'.patch'.length), readFileSync(join(dir, file), 'utf8')),
    )

export function readControl(name: string, patch: string): Control {
  const head = (key: string): string => {
    const value = new RegExp(`^${key}: (.+)$`, 'm').exec(patch.split('\ndiff ')[0] ?? '')?.[1]
    if (value) return value.trim()
    throw new Failure(`Cannot use the control \`${name}\`: its head has no \`${key}:\``)
  }
  return { name, cut: head('Cut'), case: head('Case'), red: new RegExp(head('Red')), patch }
}

/**
 * The files that a control changes, as they are with its cut.
 * @param read a file of the tree that is cut, undefined when there is none
 * @throws Failure when the patch does not fit any more
 */
export async function cutFiles(
  control: Control,
  read: (path: string) => Promise<string | undefined>,
): Promise<Changes> {
  const paths = [...control.patch.matchAll(/^\+\+\+ b\/(\S+)$/gm)].map(([, path]) => path!)
  if (paths.length === 0)
    throw new Failure(`Cannot use the control \`${control.name}\`: it cuts nothing`)
  const scratch = mkdtempSync(join(tmpdir(), 'control-'))
  try {
    for (const path of paths) {
      const text = await read(path)
      if (text === undefined) throw stale(control, `there is no \`${path}\``)
      mkdirSync(dirname(join(scratch, path)), { recursive: true })
      writeFileSync(join(scratch, path), text)
    }
    writeFileSync(join(scratch, 'cut.patch'), control.patch)
    await git(['-C', scratch, 'apply', '--recount', 'cut.patch'], {
      // a repository around the scratch directory would make git leave its files alone
      env: { GIT_CEILING_DIRECTORIES: dirname(scratch) },
    }).catch((cause: Failure) => {
      throw stale(control, cause.detail.evidence ?? cause.message)
    })
    return Object.fromEntries(
      paths.map((path) => [path, readFileSync(join(scratch, path), 'utf8')]),
    )
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

const stale = ({ name }: Control, why: string): Failure =>
  new Failure(`Cannot cut the net of \`${name}\`: its patch does not fit`, {
    evidence: why,
    hint: `Make tests/controls/${name}.patch anew`,
  })

export interface Proof {
  control: string
  cut: string
  case: string
  /** Whether the case came out red, and for the reason it was cut. */
  state: 'caught' | 'stayed green' | 'red for another reason' | 'not run'
  /** What was red. */
  found: string
  seconds: number
}

/** A control is caught when a check that it names failed; a green one means that the lab proves nothing. */
export function judgeControl(control: Control, result: CaseResult): Proof {
  const red = [
    ...result.checks.filter(({ held }) => !held).map(({ name, found }) => ({ name, found })),
    ...result.oracle
      .filter(({ state }) => state === 'failed')
      .map(({ name, host, found }) => ({ name: `oracle ${host} ${name}`, found })),
    // a wait that took too long ends the case before its checks
    ...(result.state === 'failed' ? [{ name: result.reason, found: '' }] : []),
  ]
  const hit = red.find(({ name }) => control.red.test(name))
  const ran = result.state === 'passed' || result.state === 'failed'
  const { name, cut } = control
  return {
    control: name,
    cut,
    case: control.case,
    seconds: result.seconds,
    state: !ran
      ? 'not run'
      : hit
        ? 'caught'
        : result.state === 'passed'
          ? 'stayed green'
          : 'red for another reason',
    found: hit ? [hit.name, hit.found].filter(Boolean).join(': ') : result.reason,
  }
}
