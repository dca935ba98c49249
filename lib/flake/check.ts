import {
  constants,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, relative, sep } from 'node:path'
import { Failure, oneLine, usage } from '../failure.ts'
import { isForOdd, oddIn } from './directory.ts'
import { nixString } from './syntax.ts'
import { evaluationStore } from '../nix/store.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'

/** A file of a flake with its text before and after an edit. */
interface Edited {
  /** Absolute path. */
  file: string
  before: string
  after: string
  /** What the edit inserts, and at which line. */
  inserted: string
  line: number
}

/** Whether nix checked an edit and found nothing wrong; if it was not checked, why. */
export type Asked = { asked: true } | { asked: false; why: string }

/**
 * Parses the edited file with nix, which also finds undefined variables.
 * @param flake absolute path of its directory
 * @throws Failure when nix parses the file without the edit, but not with it
 */
export const parses = (flake: string, edit: Edited): Promise<Asked> =>
  compared(flake, edit, (copy) =>
    ask(
      ['--store', 'dummy://', ...features, '--parse', join(copy, relative(flake, edit.file))],
      20,
    ),
  )

/** Whether nix parses a file; false where nix is not installed. */
export async function isParsed(file: string): Promise<boolean> {
  return (await ask(['--store', 'dummy://', ...features, '--parse', file], 20)).held
}

/**
 * Evaluates the names of the flake's hosts with nix. Inputs are those in the flake's lock file; where they cannot
 * be fetched, the flake does not evaluate without the edit either, and the edit is not blamed.
 * @param flake absolute path of its directory
 * @throws Failure when the flake evaluates without the edit, but with it fails or lacks the host
 */
export const evaluates = (flake: string, edit: Edited, name: string): Promise<Asked> =>
  compared(flake, edit, async (copy) => {
    const answer = await namesIn(flake, copy)
    if (!answer.held || copy.endsWith(before)) return answer
    const names = JSON.parse(answer.stdout) as string[]
    if (names.includes(name)) return answer
    return { held: false, silent: false, why: `nix evaluates the hosts to ${names.join(', ')}` }
  })

/**
 * Evaluates with nix whether a flake that takes its hosts from a directory takes this one: it may leave out
 * certain names or kinds of files. A host without files yet is put into a copy of the flake, with another one for
 * comparison.
 * @param flake absolute path of its directory
 * @param directory the one whose listing makes the hosts
 * @param main the host's own file in it
 * @throws Failure (usage) when the host is left out
 */
export async function takes(
  flake: string,
  directory: string,
  name: string,
  main = join(directory, name, 'default.nix'),
): Promise<Asked> {
  const forms = [join(directory, name), join(directory, `${name}.nix`)]
  if (relative(flake, directory).startsWith('..')) {
    return { asked: false, why: `\`${directory}\` is outside the flake` }
  }
  // a dangling symlink counts as present: nothing may be written through its copy
  const there = forms.find((path) => lstatSync(path, { throwIfNoEntry: false }))
  const other = `another-host-${process.pid}`
  const scratch = scratchDirectory('flake')
  try {
    const copy = join(scratch, 'after')
    if (!there) {
      // only the names are evaluated, so the hosts may be empty
      mirror(flake, copy, main, '{ }\n')
      const beside = join(copy, relative(flake, directory))
      for (const one of [name, other]) {
        writeFileSync(join(beside, `${one}.nix`), '{ }\n')
        mkdirSync(join(beside, one), { recursive: true })
        for (const file of ['default.nix', 'configuration.nix']) {
          writeFileSync(join(beside, one, file), '{ }\n')
        }
      }
    }
    const answer = await namesIn(flake, there ? flake : copy)
    if (!answer.held) return { asked: false, why: answer.why }
    const names = JSON.parse(answer.stdout) as string[]
    if (names.includes(name)) return { asked: true }
    if (!there && !names.includes(other)) return { asked: false, why: 'it is not there yet' }
    throw usage(
      `Cannot add \`${name}\`: the flake leaves \`${there ?? forms[0]}\` out`,
      'Something between the listing and the hosts leaves it out: fix that, or choose another name',
    )
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Whether the flake has a host of that name according to nix, where the source does not show the names. */
export async function has(flake: string, name: string): Promise<boolean> {
  const answer = await namesIn(flake, flake)
  return answer.held && (JSON.parse(answer.stdout) as string[]).includes(name)
}

const before = 'before'

/**
 * Asks nix about a copy of the flake with the edit, which is not on disk yet. The edit is at fault only if the
 * answer is no with it and yes without it.
 */
async function compared(
  flake: string,
  edit: Edited,
  question: (copy: string) => Promise<Answer>,
): Promise<Asked> {
  const scratch = scratchDirectory('flake')
  const about = (copy: string, text: string): Promise<Answer> => {
    mirror(flake, join(scratch, copy), edit.file, text)
    return question(join(scratch, copy))
  }
  try {
    const after = await about('after', edit.after)
    if (after.held) return { asked: true }
    if (after.silent || !(await about(before, edit.before)).held)
      return { asked: false, why: after.why }
    throw new Failure(`Cannot add to \`${edit.file}\` at line ${edit.line}: ${after.why}`, {
      hint: `Nothing was written; this was tried: ${edit.inserted.trim().replace(/\s+/g, ' ')}`,
    })
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/**
 * Makes `copy` look like the flake, except for one file that has another text or is new. Directories without that
 * file are symlinks. Files are copied, because nix resolves a file's relative paths from the target of a symlink.
 */
function mirror(flake: string, copy: string, file: string, text: string): void {
  let [from, to] = [flake, copy]
  mkdirSync(copy)
  for (const step of relative(flake, file).split(sep)) {
    for (const entry of existsSync(from) ? readdirSync(from, { withFileTypes: true }) : []) {
      const [source, target] = [join(from, entry.name), join(to, entry.name)]
      if (entry.name === step) continue
      if (entry.isFile()) copyFileSync(source, target, constants.COPYFILE_FICLONE)
      else symlinkSync(source, target)
    }
    ;[from, to] = [join(from, step), join(to, step)]
    if (from === file) writeFileSync(to, text)
    else mkdirSync(to)
  }
}

/** `getFlake` serves only for the locked inputs: it would see neither the edit nor an untracked file. */
const hostNames = (flake: string, copy: string): string => `
let
  flake = builtins.getFlake ${nixString(addressOf(flake))};
  # frameworks read directories below outPath
  self = flake // outputs // { outPath = ${nixString(copy)}; };
  outputs = (import ${nixString(`${copy}/flake.nix`)}).outputs (flake.inputs // { inherit self; });
in
builtins.attrNames outputs.nixosConfigurations
`

/** The flake reference for nix: the plain path, or an encoded one, which Nix 2.26 accepts and 2.8 does not. */
const addressOf = (flake: string): string =>
  oddIn(flake) === undefined ? flake : `path:${flake.split('/').map(encodeURIComponent).join('/')}`

/** The names of the hosts that the flake has in a copy. */
async function namesIn(flake: string, copy: string): Promise<Answer> {
  const question = [...evaluation, '-E', hostNames(flake, copy)]
  let answer = await ask(question, 60)
  // without a daemon only root can use nix's own store, and nothing evaluates at all
  const isClosed = !answer.held && !answer.silent && !(await ask(['--eval', '-E', '1'], 20)).held
  if (isClosed) answer = await ask(question, 60, evaluationStore)
  const odd = oddIn(flake)
  if (answer.held || odd === undefined || !isForOdd(answer.why)) return answer
  const why = `nix cannot handle the path of the flake, because of the ${oneLine(`\`${odd}\``)} in it`
  return { ...answer, why }
}

/** Features a flake may need; Nix and Lix name the pipe operators differently. An unknown name only gives a warning. */
const features = ['--option', 'extra-experimental-features', 'flakes pipe-operators pipe-operator']

const evaluation = [
  ['--eval', '--strict', '--json', ...features],
  // do not wait for an absent network
  ['--option', 'connect-timeout', '5', '--option', 'download-attempts', '1'],
].flat()

/** `silent`: nix is not installed, or did not finish. */
type Answer = { held: true; stdout: string } | { held: false; silent: boolean; why: string }

async function ask(args: string[], timeout: number, store = (): string[] => []): Promise<Answer> {
  try {
    const { stdout, stderr, code } = await run('nix-instantiate', [...store(), ...args], {
      timeout,
      allow: [1, 127],
      // an input that wants a password must fail, not ask
      env: { GIT_TERMINAL_PROMPT: '0', GIT_SSH_COMMAND: 'ssh -oBatchMode=yes' },
    })
    if (code === 0) return { held: true, stdout }
    if (code === 127) return { held: false, silent: true, why: 'nix is not installed' }
    const why = /error:\s*(?:error:\s*)*(.+)/.exec(stderr)?.[1] ?? 'nix gives no reason'
    return { held: false, silent: false, why }
  } catch (error) {
    if (error instanceof Failure) return { held: false, silent: true, why: error.message }
    throw error
  }
}
