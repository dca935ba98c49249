import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism, freemem } from 'node:os'
import { join } from 'node:path'
import { Failure, oneLine } from '../failure.ts'
import { isForOdd, oddIn } from '../flake/directory.ts'
import { gate } from '../gate.ts'
import { allowingFor } from '../git-owner.ts'
import { requireNamespaces } from '../namespaces.ts'
import { progress } from './progress.ts'
import { counting } from '../retry.ts'
import { lastLines, run, type RunOptions } from '../run.ts'

const features = [
  '--extra-experimental-features',
  'nix-command flakes',
  '--option',
  'warn-dirty',
  'false',
]

/**
 * Runs nix with flakes enabled. Only use flags that all versions have: Debian 12 ships 2.8.
 * @throws Failure with nix's own last words
 */
export const nix = (args: string[], options: RunOptions = {}) =>
  run('nix', [...features, ...args], { timeout: 300, ...options })

/** One evaluation of a NixOS host took up to 1.1 GB: 18 hosts at once would fill a laptop's memory. */
const evaluations = gate(
  Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / 1.5e9))),
)

/**
 * One evaluation: a Nix function, given as text, applied to an attribute of a flake.
 * @param flake its directory; in a git repository, nix sees only the files that git tracks
 * @param store options that name the store to write derivations to
 * @param options `readOnly` keeps nix from writing newly resolved inputs into the flake's lock file
 * @returns the JSON value
 */
export async function evaluate<T>(
  flake: string,
  attribute: string,
  apply: string,
  store: string[],
  { readOnly, ...options }: RunOptions & { readOnly?: boolean } = {},
): Promise<T> {
  refuseAnother(flake, attribute)
  await evaluations.enter()
  const of = [...store, ...(readOnly ? ['--no-write-lock-file'] : [])]
  const args = ['eval', ...of, '--json', `${flake}#${attribute}`, '--apply', apply]
  try {
    // nix's message about a wrong definition may be longer than the output that a failed command keeps
    const { stdout, stderr, code } = await nix(args, { ...options, allow: [1] })
    if (code === 0) return JSON.parse(stdout) as T
    throw new Failure('nix gives no reason', { evidence: stderr })
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const hint = await allowingFor(flake)
    if (hint === undefined) throw await evaluationFailure(flake, attribute, error)
    const why = 'its repository belongs to another user'
    throw new Failure(`Cannot evaluate \`${flake}#${attribute}\`: ${why}`, { hint })
  } finally {
    evaluations.leave()
  }
}

/**
 * Refuses paths for which nix silently takes another flake: for a path with `?` or `#`, the one at the shorter path;
 * for a directory without `flake.nix`, the one in a directory above. The lab would still read its settings from the
 * given one.
 * @throws Failure
 */
function refuseAnother(flake: string, attribute: string): void {
  // any other reference was made by the lab itself
  if (!flake.startsWith('/')) return
  const [end] = /[?#]/.exec(flake) ?? []
  if (end !== undefined) {
    const why = `for nix its path ends at the \`${end}\``
    throw new Failure(`Cannot evaluate \`${flake}\`: ${why}`, {
      hint: 'Move it, or mount it elsewhere',
    })
  }
  if (existsSync(join(flake, 'flake.nix'))) return
  const why = 'there is no flake.nix in it'
  throw new Failure(`Cannot evaluate \`${flake}#${attribute}\`: ${why}`, {
    hint: 'Name its directory: LAB_FLAKE=DIR',
  })
}

/**
 * Builds derivations and returns their output paths, in order. `nix-store --realise` rather than
 * `nix build`, whose syntax for a derivation changed between versions.
 * @param say receives lines with nix's counts of builds and downloads
 * @throws Failure with the last lines of the builder that failed
 */
export async function realise(
  derivations: string[],
  store: string[],
  options: RunOptions & { say?: (line: string) => void } = {},
): Promise<string[]> {
  const { say, ...rest } = options
  const args = ['--realise', '--log-format', 'internal-json', ...store, ...derivations]
  const seen = progress()
  const { timeout = 1800 } = rest
  let last = ''
  const onLine = (line: string): void => {
    // at once, as most builds finish before the time is first reported, after a second
    if (seen.take(line) && say && seen.line() !== last) say((last = seen.line()))
  }
  const realised = () => run('nix-store', args, { onLine, ...rest, timeout })
  try {
    const { stdout } = await (say
      ? counting(() => seen.line() || 'nix', timeout, say, realised)
      : realised())
    return stdout.trim().split('\n')
  } catch (error) {
    if (!(error instanceof Failure) || !seen.errors()) throw error
    if (/namespaces (are not enabled|that are required)/.test(seen.errors()))
      await requireNamespaces()
    // the output itself is JSON, so the evidence is nix's errors from it
    throw new Failure(error.message, { ...error.detail, evidence: seen.errors() })
  }
}

/**
 * Copies a closure from this machine's store into a guest's, over SSH.
 * @param host its name in `sshConfig`
 * @returns number of bytes copied
 * @throws Failure
 */
export async function copyTo(
  host: string,
  sshConfig: string,
  path: string,
  options: RunOptions & { say?: (line: string) => void } = {},
): Promise<number> {
  const { say, timeout = 1800, ...rest } = options
  if (/\s/.test(sshConfig)) {
    throw new Failure(`Cannot give nix the file \`${sshConfig}\`: its path has a blank`, {
      hint: 'Set LAB_HOME to another directory',
    })
  }
  const seen = progress()
  const onLine = (line: string): void => void seen.take(line)
  // --no-check-sigs: the guest trusts everyone who can log in as its root
  const args = ['copy', '--no-check-sigs', '--log-format', 'internal-json', '--to', `ssh://${host}`]
  try {
    const env = { NIX_SSHOPTS: `-F ${sshConfig}` }
    const copied = () => nix([...args, path], { env, onLine, ...rest, timeout })
    await (say ? counting(() => `copy: ${seen.line()}`, timeout, say, copied) : copied())
    return seen.copied()
  } catch (error) {
    if (!(error instanceof Failure) || !seen.errors()) throw error
    throw new Failure(error.message, { ...error.detail, evidence: seen.errors() })
  }
}

export interface PathInfo {
  path: string
  narSize: number
}

/** Every path of a closure with its size in bytes. */
export async function closure(path: string, store: string[]): Promise<PathInfo[]> {
  const { stdout } = await nix(['path-info', ...store, '--json', '--recursive', path])
  const info = JSON.parse(stdout) as PathInfo[] | Record<string, PathInfo>
  // a list up to nix 2.18, an object by path since then
  return Array.isArray(info)
    ? info
    : Object.entries(info).map(([key, value]) => ({ ...value, path: key }))
}

const unreached =
  /unable to download|could(?:n't| not) resolve host|failed to open archive|failed to connect|unable to access/i

/**
 * The first error in nix's output, with the lines that belong to it. Errors that only follow from another are skipped:
 * nix 2.34 names what failed and then everything that depends on it, up to the whole system.
 * @param said standard error; if it has no error, its last lines are returned
 */
export function firstError(said: string): string {
  const errors = said.match(/^error:.*(?:\n(?:[ \t].*)?)*/gm) ?? []
  const first = errors.find((each) => !/\d+ dependenc(y|ies) (failed|of derivation)/.test(each))
  const lines = (first ?? errors[0] ?? lastLines(said)).trimEnd().split('\n')
  // the message comes first; the innermost error of a trace, or the end of a builder's log, comes last
  return lines.length > 12
    ? [...lines.slice(0, 2), ...lines.slice(-10)].join('\n')
    : lines.join('\n')
}

/** The message of a nix error on one line: the innermost one of a trace. */
export const causeIn = (error: string): string | undefined => lastError(error)?.[1]

const lastError = (words: string): RegExpExecArray | undefined =>
  [...words.matchAll(/^\s*error:\s*(?:error:\s*)*(\S.*)/gm)].at(-1)

/** nix prints a trace that ends with the cause: its last `error:` says what to fix and where. */
async function evaluationFailure(
  flake: string,
  attribute: string,
  failure: Failure,
): Promise<Failure> {
  const words = (failure.detail.evidence ?? '').trimEnd()
  const cause = lastError(words)
  if (/does not provide attribute/.test(cause?.[1] ?? ''))
    return withoutHosts(flake, attribute, `has no ${attribute}`)
  const end = lastLines(words)
  return new Failure(
    `Cannot evaluate \`${flake}#${attribute}\`: ${cause?.[1] ?? failure.message}`,
    {
      ...failure.detail,
      // if the cause is long, its first lines: the values in it come last
      evidence:
        cause && words.length - end.length > cause.index
          ? words.slice(cause.index).trimStart().split('\n').slice(0, 8).join('\n')
          : end,
      hint: await hintFor(flake, words, cause?.[1] ?? ''),
    },
  )
}

/** The failure where a flake has no hosts of a kind, or lacks one. @param lacks such as `has no nixosConfigurations` */
export const withoutHosts = (flake: string, attribute: string, lacks: string): Failure =>
  new Failure(`Cannot find a host: \`${flake}\` ${lacks}`, {
    hint: attribute.startsWith('labConfigurations')
      ? 'LAB_GUEST=nixos takes its nixosConfigurations'
      : 'Add one, as by: just scaffold-host web && just add-to-flake web',
  })

async function hintFor(flake: string, words: string, cause: string): Promise<string | undefined> {
  const odd = oddIn(flake)
  if (odd !== undefined && isForOdd(cause)) {
    return `nix cannot handle the path of this flake, because of the ${oneLine(`\`${odd}\``)} in it: move it, or mount it elsewhere`
  }
  if (/permission denied|not permitted|^creating directory|read-only file system/i.test(cause))
    return 'This user may not write there: nix needs a home directory, and a store of this user or its daemon (Debian: nix-setup-systemd)'
  if (unreached.test(cause))
    return `${unfetched(flake, words)} could not be fetched: check that this machine can reach its server`
  const isOfFile = /no such file|path .* does not exist|not tracked|does not contain|find a flake/i
  if (!isOfFile.test(cause) && !(await hasUntracked(flake))) return undefined
  return 'A file that git does not track is invisible to a flake: git add --intent-to-add it'
}

/** Whether there is a Nix file that git does not track, ignored or forgotten, so that the flake does not see it. */
async function hasUntracked(flake: string): Promise<boolean> {
  const ask = ['-C', flake, 'ls-files', '--others', '--', '*.nix']
  return (await run('git', ask, { allow: [127, 128] })).stdout !== ''
}

/** What nix could not fetch, in words: the input whose locked revision is in nix's output. */
export function unfetched(flake: string, words: string): string {
  const path = join(flake, 'flake.lock')
  if (!existsSync(path)) return 'An input of the flake'
  const { nodes } = JSON.parse(readFileSync(path, 'utf8')) as {
    nodes: Record<string, { locked?: { rev?: string } }>
  }
  const found = Object.entries(nodes).find(
    ([, { locked }]) => locked?.rev !== undefined && words.includes(locked.rev),
  )
  return found ? `The input \`${found[0]}\` of the flake` : 'An input of the flake'
}
