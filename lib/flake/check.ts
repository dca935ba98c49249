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

/** A file of a flake with the text that it is to have. */
interface Edited {
  /** Absolute path. */
  file: string
  before: string
  after: string
  /** What was written into it, and at which line. */
  inserted: string
  line: number
}

/** Whether nix looked at an edit and found nothing wrong; if it did not look, why. */
export type Asked = { asked: true } | { asked: false; why: string }

/**
 * Has nix parse the edited file, which finds undefined variables too.
 * @param flake absolute path of its directory
 * @throws Failure when nix parses the file as it is, and does not with the edit
 */
export const parses = (flake: string, edit: Edited): Promise<Asked> =>
  compared(flake, edit, (copy) =>
    ask(
      ['--store', 'dummy://', ...features, '--parse', join(copy, relative(flake, edit.file))],
      20,
    ),
  )

/** Whether nix parses a file as it is; no where there is no nix to ask. */
export async function isParsed(file: string): Promise<boolean> {
  return (await ask(['--store', 'dummy://', ...features, '--parse', file], 20)).held
}

/**
 * Has nix evaluate the names of the flake's hosts. Inputs are those that the flake is locked to;
 * where they cannot be had, the flake does not evaluate without the edit either.
 * @param flake absolute path of its directory
 * @throws Failure when the flake evaluates as it is, and with the edit does not or lacks the host
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
 * Has nix evaluate whether a flake that takes its hosts from a directory takes this one, as it may leave
 * out names or kinds of files. One that is not there yet is put into a copy, with another for comparison.
 * @param flake absolute path of its directory
 * @param directory whose listing makes the hosts
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
  // a symlink that leads nowhere is there, too: nothing may be written through its copy
  const there = forms.find((path) => lstatSync(path, { throwIfNoEntry: false }))
  const other = `another-host-${process.pid}`
  const scratch = scratchDirectory('flake')
  try {
    const copy = join(scratch, 'after')
    if (!there) {
      // names alone are asked for, so what the hosts are does not matter
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
      'Something between the listing and the hosts filters it: mend that, or take another name',
    )
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Whether nix evaluates a host of that name, where the source does not show the names. */
export async function has(flake: string, name: string): Promise<boolean> {
  const answer = await namesIn(flake, flake)
  return answer.held && (JSON.parse(answer.stdout) as string[]).includes(name)
}

const before = 'before'

/**
 * Asks about a copy of the flake with the edit, as that is not on disk yet. Only if the answer is no
 * and was yes without the edit, the edit is at fault.
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
 * Makes `copy` look like the flake but for one file, which has another text, or is new. Directories without it
 * are symlinks; files are not, as nix takes a file's relative paths from where its symlink leads.
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

/** `getFlake` for the locked inputs only: it would see neither the edit nor an untracked file. */
const hostNames = (flake: string, copy: string): string => `
let
  flake = builtins.getFlake ${nixString(addressOf(flake))};
  # as frameworks read directories of it
  self = flake // outputs // { outPath = ${nixString(copy)}; };
  outputs = (import ${nixString(`${copy}/flake.nix`)}).outputs (flake.inputs // { inherit self; });
in
builtins.attrNames outputs.nixosConfigurations
`

/** Where nix finds a flake: by a path as it is, or else encoded, which Nix 2.26 takes and 2.8 does not. */
const addressOf = (flake: string): string =>
  oddIn(flake) === undefined ? flake : `path:${flake.split('/').map(encodeURIComponent).join('/')}`

/** The names of the hosts of a flake, as its copy has them. */
async function namesIn(flake: string, copy: string): Promise<Answer> {
  const question = [...evaluation, '-E', hostNames(flake, copy)]
  let answer = await ask(question, 60)
  // without a daemon nix's own store is root's alone, and then nothing at all evaluates
  const isClosed = !answer.held && !answer.silent && !(await ask(['--eval', '-E', '1'], 20)).held
  if (isClosed) answer = await ask(question, 60, evaluationStore)
  const odd = oddIn(flake)
  if (answer.held || odd === undefined || !isForOdd(answer.why)) return answer
  const why = `nix cannot spell the path of the flake, for the ${oneLine(`\`${odd}\``)} in it`
  return { ...answer, why }
}

/** What a flake may need; the pipe operators as Nix and as Lix call them. One that is not known gives a warning. */
const features = ['--option', 'extra-experimental-features', 'flakes pipe-operators pipe-operator']

const evaluation = [
  ['--eval', '--strict', '--json', ...features],
  // do not wait for a network that is not there
  ['--option', 'connect-timeout', '5', '--option', 'download-attempts', '1'],
].flat()

/** `silent`: there is no nix here, or it did not come to an end. */
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
