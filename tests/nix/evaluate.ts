import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { evaluate, nix } from '../../lib/nix/nix.ts'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'

/** The hosts of the flake. */
export const hosts = ['sorrow', 'torment'] as const

/** Text of a file below tests/nix. */
export const text = (path: string): string => readFileSync(join(import.meta.dirname, path), 'utf8')

/** Nix options for a private store, so that nothing is left in the machine's store and any user can run the test. */
export function store(): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'lab-nix-'))
  onTestFinished(async () => {
    // nix makes everything in a store read-only
    await run('chmod', ['-R', 'u+w', directory])
    rmSync(directory, { recursive: true })
  })
  return ['--store', directory]
}

/**
 * JSON of a path of `labConfigurations`, after the Nix function `apply`.
 * @throws Failure with nix's last words as evidence
 */
export const lab = <T>(path: string, apply = 'x: x'): Promise<T> =>
  evaluate<T>(project, `labConfigurations.${path}`, apply, store())

/** JSON of a Nix expression in which `lab` is nix/lab. @throws Failure */
export async function expression<T>(body: string): Promise<T> {
  const expr = `let lab = import ${project}/nix/lab; in ${body}`
  const { stdout } = await nix(['eval', ...store(), '--impure', '--json', '--expr', expr])
  return JSON.parse(stdout) as T
}

/** The error message of an expression that must fail. */
export async function refusal(body: string): Promise<string> {
  const expr = `let lab = import ${project}/nix/lab; in ${body}`
  const { stderr, code } = await nix(['eval', ...store(), '--impure', '--json', '--expr', expr], {
    allow: [1],
  })
  return code === 0 ? 'evaluated' : stderr
}

/** @param installable replaces the path of a host of this flake */
type NixOS = <T>(path: string, apply?: string, installable?: string) => Promise<T>

let found: Promise<{ nixos: NixOS } | { missing: string }> | undefined

/**
 * Evaluates real NixOS: by the command in LAB_NIXOS_EVAL (which takes nix's arguments), else by nix itself if
 * the flake's nixpkgs is available. Tried once; `missing` says why it is not possible.
 */
export const findNixOS = (): Promise<{ nixos: NixOS } | { missing: string }> => (found ??= probe())

async function probe(): Promise<{ nixos: NixOS } | { missing: string }> {
  const given = process.env['LAB_NIXOS_EVAL']?.split(' ').filter(Boolean)
  const [command, ...first] = given ?? [
    'nix',
    '--extra-experimental-features',
    'nix-command flakes',
    '--option',
    'download-attempts',
    '1',
    '--option',
    'connect-timeout',
    '3',
  ]
  const nixos: NixOS = async <T>(
    path: string,
    apply = 'x: x',
    installable = `.#nixosConfigurations.${path}`,
  ): Promise<T> => {
    const args = ['eval', '--json', installable, '--apply', apply]
    const done = await run(command!, [...first, ...args], { cwd: project, timeout: 900 })
    return JSON.parse(done.stdout) as T
  }
  try {
    await nixos('sorrow.config.networking.hostName')
    return { nixos }
  } catch (error) {
    // if the given command does not work, the test must fail and not be skipped
    if (given) throw error
    return { missing: 'NixOS cannot be evaluated here (no nixpkgs at hand); set LAB_NIXOS_EVAL' }
  }
}
