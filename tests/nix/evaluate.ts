import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { evaluate, nix } from '../../lib/nix/nix.ts'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'

/** The hosts of the flake, as the plan has them. */
export const hosts = ['sorrow', 'torment'] as const

/** Text of a file below tests/nix. */
export const text = (path: string): string => readFileSync(join(import.meta.dirname, path), 'utf8')

/** A store of the test's own, so that nothing is left in the machine's and any user may run it. */
export function store(): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'lab-nix-'))
  onTestFinished(async () => {
    // what nix adds to a store is read-only
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

/** What nix says of an expression that must fail. */
export async function refusal(body: string): Promise<string> {
  const expr = `let lab = import ${project}/nix/lab; in ${body}`
  const { stderr, code } = await nix(['eval', ...store(), '--impure', '--json', '--expr', expr], {
    allow: [1],
  })
  return code === 0 ? 'evaluated' : stderr
}

/** @param installable in place of the path of a host of this flake */
type NixOS = <T>(path: string, apply?: string, installable?: string) => Promise<T>

let found: Promise<{ nixos: NixOS } | { missing: string }> | undefined

/**
 * Evaluation of real NixOS: by the command in LAB_NIXOS_EVAL (which takes nix's arguments), else by
 * nix itself where the flake's nixpkgs is at hand. Tried once; what it lacks is said in `missing`.
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
    // told to use a command that does not work: that is a failure and no skip
    if (given) throw error
    return { missing: 'NixOS cannot be evaluated here (no nixpkgs at hand); set LAB_NIXOS_EVAL' }
  }
}
