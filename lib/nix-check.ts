import { dirname } from 'node:path'
import { Failure } from './failure.ts'
import type { Edit } from './flake-edit.ts'
import { nixString } from './nix-syntax.ts'
import { run } from './run.ts'

/** Whether nix itself was asked, and why not if not. */
export type Asked = { asked: true } | { asked: false; why: string }

/**
 * Has nix parse the edited file, which also finds undefined variables.
 * @throws Failure when nix parses the file as it is and not as it would be
 */
export async function parses(edit: Edit): Promise<Asked> {
  const parse = (text: string): Promise<Answer> =>
    ask(['--store', 'dummy://', '--parse', '-'], text, dirname(edit.file), 20)
  const after = await parse(edit.after)
  if (after.held) return { asked: true }
  if (after.absent || !(await parse(edit.before)).held) return { asked: false, why: after.why }
  throw refused(edit, after.why)
}

/**
 * Has nix evaluate the names of the flake's hosts with the edit, which need not be on disk for
 * that. Inputs are those that the flake is locked to; where they cannot be had, the flake does not
 * evaluate without the edit either, and nothing is said of it.
 * @param flake absolute path of its directory
 * @throws Failure when the flake evaluates as it is, and with the edit does not or lacks the host
 */
export async function evaluates(flake: string, edit: Edit, name: string): Promise<Asked> {
  if (edit.file !== `${flake}/flake.nix`) {
    return { asked: false, why: 'the edit is in a file that flake.nix imports' }
  }
  const names = (text: string): Promise<Answer> =>
    ask(
      ['--eval', '--strict', '--json', '--option', 'extra-experimental-features', 'flakes', ...hasty, '-'],
      `let
  flake = builtins.getFlake ${nixString(flake)};
  self = flake // outputs;
  outputs = (${text}
  ).outputs (flake.inputs // { inherit self; });
in builtins.attrNames outputs.nixosConfigurations`,
      flake,
      60,
    )
  const after = await names(edit.after)
  if (after.held) {
    if ((JSON.parse(after.stdout) as string[]).includes(name)) return { asked: true }
    throw refused(edit, `nix evaluates the hosts to ${after.stdout.trim()}`)
  }
  if (after.absent || !(await names(edit.before)).held) return { asked: false, why: after.why }
  throw refused(edit, after.why)
}

/** Do not wait for a network that is not there. */
const hasty = ['--option', 'connect-timeout', '5', '--option', 'download-attempts', '1']

const refused = (edit: Edit, why: string): Failure =>
  new Failure(`Cannot add to \`${edit.file}\` at line ${edit.line}: ${why}`, {
    hint: `Nothing was written; this was tried: ${edit.inserted.trim().replace(/\s+/g, ' ')}`,
  })

type Answer = { held: true; stdout: string } | { held: false; absent: boolean; why: string }

async function ask(args: string[], input: string, cwd: string, timeout: number): Promise<Answer> {
  try {
    const { stdout, stderr, code } = await run('nix-instantiate', args, {
      cwd,
      input,
      timeout,
      allow: [1, 127],
      env: { GIT_TERMINAL_PROMPT: '0', GIT_SSH_COMMAND: 'ssh -oBatchMode=yes' },
    })
    if (code === 0) return { held: true, stdout }
    if (code === 127) return { held: false, absent: true, why: 'nix is not installed' }
    const why = /error:\s*(?:error:\s*)*(.+)/.exec(stderr)?.[1] ?? 'nix gives no reason'
    return { held: false, absent: false, why }
  } catch (error) {
    // a time limit that passed says nothing of the edit
    if (error instanceof Failure) return { held: false, absent: true, why: error.message }
    throw error
  }
}
