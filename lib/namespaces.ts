import { existsSync, readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { Failure } from './failure.ts'
import { run } from './run.ts'

/**
 * Arguments of `unshare` for a command as root of namespaces of its own: real root keeps its user, anyone else
 * becomes root of a range of subordinate users, so that files can have any owner. What it mounts nobody else sees,
 * and nothing of it outlives the process that started it.
 */
export const inNamespaces = (): string[] => [
  ...(isRoot() ? [] : ['--user', '--map-auto', '--map-root-user']),
  ...['--mount', '--pid', '--fork', '--kill-child', '--'],
]

/**
 * Asks for the namespaces that the image and Nix's sandbox are made in; root, too, needs those of users for Nix.
 * @throws Failure that says how this user gets them
 */
export async function requireNamespaces(signal?: AbortSignal): Promise<void> {
  try {
    await run('unshare', [...inNamespaces(), 'unshare', '--user', 'true'], { signal })
  } catch (cause) {
    if (!(cause instanceof Failure)) throw cause
    throw new Failure('Cannot make the namespaces that images and systems are built in', {
      hint: remedy(),
      evidence: cause.detail.evidence,
      cause,
    })
  }
}

/** What keeps a user from them, by how often it does: a setting of the machine, no range of ids, a container. */
function remedy(): string {
  if (setting('kernel/apparmor_restrict_unprivileged_userns') === '1' && !isRoot())
    return 'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'
  if (setting('kernel/unprivileged_userns_clone') === '0' && !isRoot())
    return 'sudo sysctl -w kernel.unprivileged_userns_clone=1'
  if (setting('user/max_user_namespaces') === '0')
    return 'sudo sysctl -w user.max_user_namespaces=15000'
  const { username, uid } = userInfo()
  const ranges = existsSync('/etc/subuid') ? readFileSync('/etc/subuid', 'utf8').split('\n') : []
  if (!isRoot() && !ranges.some((line) => [username, String(uid)].includes(line.split(':')[0]!)))
    return `Install uidmap, and: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`
  return 'A container has to allow them: docker run --privileged, for one'
}

const isRoot = (): boolean => process.getuid?.() === 0

/** A setting of the kernel; undefined where it has none of that name. */
function setting(name: string): string | undefined {
  const path = `/proc/sys/${name}`
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined
}
