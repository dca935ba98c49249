import { mayFail, mayFailHint } from '../lab-settings.ts'
import { Failure, Exit } from '../failure.ts'
import type { Host } from '../nix/host.ts'
import { sshConfig } from './identity.ts'
import { closure, copyTo } from '../nix/nix.ts'
import { counting } from '../retry.ts'
import { run } from '../run.ts'
import type { Ssh } from '../ssh/ssh.ts'

const profile = '/nix/var/nix/profiles/system'

/** The store path of the system that a guest runs. */
export const runningToplevel = async (root: Ssh): Promise<string> =>
  (await root.exec('readlink -f /run/current-system', { timeout: 30 })).stdout.trim()

/**
 * Copies the paths of a host's toplevel that a guest's store lacks into it.
 * @param root a connection as root
 * @param store options that name the store that has the toplevel
 * @returns bytes that were sent
 */
export const bring = (
  root: Ssh,
  { guest, name, toplevel }: Host,
  store: string[],
  patience: number,
  say: (line: string) => void,
): Promise<number> =>
  guest === 'nixos'
    ? copyTo(`${name}-root`, sshConfig(), toplevel, { timeout: 600 * patience, say })
    : counting('copy the closure', 120 * patience, say, () => send(root, toplevel, store, patience))

/**
 * Copies a built toplevel into a running guest, makes it a new generation, and switches to it.
 * @param root a connection as root
 * @param store options that name the store in which it was built
 * @returns bytes that were sent
 * @throws Failure (a check failed) when the switch fails, or leaves failed units that are not in `may-fail` of lab.toml
 */
export async function switchTo(
  root: Ssh,
  host: Host,
  store: string[],
  patience: number,
  say: (line: string) => void,
): Promise<number> {
  const nixos = host.guest === 'nixos'
  const sent = await bring(root, host, store, patience, say)
  const limit = (nixos ? 300 : 60) * patience
  // runs in a separate unit, because on NixOS a switch may restart a service that this login depends on
  const apart = nixos
    ? 'systemd-run --collect --pipe --quiet --wait --service-type=exec --unit=lab-switch '
    : ''
  const command = `nix-env --profile ${profile} --set ${host.toplevel} && ${apart}${host.toplevel}/bin/switch-to-configuration switch`
  const { code, stderr, stdout } = await counting('switch', limit, say, () =>
    root.exec(command, { timeout: limit, allow: 'any' }),
  )
  if (code === 0 || (code === 4 && (await onlyExcused(root, host, limit)))) return sent
  throw new Failure(`Cannot switch \`${host.name}\` to ${host.toplevel}: it exited with ${code}`, {
    exit: Exit.checkFailed,
    hint: code === 4 ? mayFailHint : undefined,
    evidence: (stderr || stdout).split('\n').slice(-12).join('\n'),
    replay: `just ssh-test-vm ${host.name} --root -- ${host.toplevel}/bin/switch-to-configuration switch`,
  })
}

/** Whether all units that a switch left failed are units that may fail. */
async function onlyExcused(root: Ssh, { facts }: Host, limit: number): Promise<boolean> {
  const ask = 'systemctl list-units --all --plain --no-legend --state=failed,auto-restart'
  const { stdout } = await root.exec(ask, { timeout: limit })
  const failed = stdout.split('\n').flatMap((line) => line.split(' ')[0] || [])
  return failed.length > 0 && failed.every((unit) => mayFail(unit, facts.mayFail))
}

/** Sends the paths of a closure that the guest's store lacks, with two commands where `nix copy` needs a dozen. */
async function send(
  root: Ssh,
  toplevel: string,
  store: string[],
  patience: number,
): Promise<number> {
  const limit = 60 * patience
  const paths = (await closure(toplevel, store)).map(({ path }) => path)
  const ask = `nix-store --check-validity --print-invalid ${paths.join(' ')}`
  const missing = (await root.exec(ask, { timeout: limit })).stdout.split('\n').filter(Boolean)
  if (missing.length === 0) return 0
  // base64, because `run` decodes a command's output as text
  const argv = [
    '-c',
    'nix-store "$@" | base64 --wrap=0',
    'export',
    ...store,
    '--export',
    ...missing,
  ]
  const archive = Buffer.from((await run('sh', argv)).stdout, 'base64')
  await root.exec('nix-store --import', { input: archive, timeout: limit })
  return archive.length
}
