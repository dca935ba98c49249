import {
  constants,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative, sep } from 'node:path'
import { Failure } from './failure.ts'
import type { Edit } from './flake-edit.ts'
import { nixString } from './nix-syntax.ts'
import { run } from './run.ts'

/** Whether nix looked at an edit and found nothing wrong; if it did not look, why. */
export type Asked = { asked: true } | { asked: false; why: string }

/**
 * Has nix parse the edited file, which finds undefined variables too.
 * @throws Failure when nix parses the file as it is, and does not with the edit
 */
export async function parses(edit: Edit): Promise<Asked> {
  const parse = (text: string): Promise<Answer> =>
    ask(['--store', 'dummy://', '--parse', '-'], text, dirname(edit.file), 20)
  const after = await parse(edit.after)
  if (after.held) return { asked: true }
  if (after.silent || !(await parse(edit.before)).held) return { asked: false, why: after.why }
  throw refused(edit, after.why)
}

/**
 * Has nix evaluate the names of the flake's hosts with the edit, which is not on disk yet. Inputs
 * are those that the flake is locked to. Where they cannot be had, the flake does not evaluate
 * without the edit either, and that says nothing of the edit.
 * @param flake absolute path of its directory
 * @throws Failure when the flake evaluates as it is, and with the edit does not or lacks the host
 */
export async function evaluates(flake: string, edit: Edit, name: string): Promise<Asked> {
  const names = async (text: string): Promise<Answer> => {
    const copy = mkdtempSync(join(tmpdir(), 'edited-flake-'))
    try {
      mirror(flake, copy, edit.file, text)
      return await ask([...evaluation, '-'], hostNames(flake, copy), copy, 60)
    } finally {
      rmSync(copy, { recursive: true, force: true })
    }
  }
  const after = await names(edit.after)
  if (after.held) {
    if ((JSON.parse(after.stdout) as string[]).includes(name)) return { asked: true }
    throw refused(edit, `nix evaluates the hosts to ${after.stdout.trim()}`)
  }
  if (after.silent || !(await names(edit.before)).held) return { asked: false, why: after.why }
  throw refused(edit, after.why)
}

/**
 * Makes `copy` look like the flake but for one file, which has another text. Directories without it
 * are symlinks; files are not, as nix takes a file's relative paths from where its symlink leads.
 */
function mirror(flake: string, copy: string, file: string, text: string): void {
  let [from, to] = [flake, copy]
  for (const step of relative(flake, file).split(sep)) {
    for (const entry of readdirSync(from, { withFileTypes: true })) {
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
  flake = builtins.getFlake ${nixString(flake)};
  self = flake // outputs;
  outputs = (import ${nixString(`${copy}/flake.nix`)}).outputs (flake.inputs // { inherit self; });
in
builtins.attrNames outputs.nixosConfigurations
`

const evaluation = [
  ['--eval', '--strict', '--json', '--option', 'extra-experimental-features', 'flakes'],
  // do not wait for a network that is not there
  ['--option', 'connect-timeout', '5', '--option', 'download-attempts', '1'],
].flat()

const refused = (edit: Edit, why: string): Failure =>
  new Failure(`Cannot add to \`${edit.file}\` at line ${edit.line}: ${why}`, {
    hint: `Nothing was written; this was tried: ${edit.inserted.trim().replace(/\s+/g, ' ')}`,
  })

/** `silent`: there is no nix here, or it did not come to an end. */
type Answer = { held: true; stdout: string } | { held: false; silent: boolean; why: string }

async function ask(args: string[], input: string, cwd: string, timeout: number): Promise<Answer> {
  try {
    const { stdout, stderr, code } = await run('nix-instantiate', args, {
      cwd,
      input,
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
