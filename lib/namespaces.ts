import { existsSync, readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { Failure } from './failure.ts'
import { run } from './run.ts'

/**
 * Arguments of `unshare` that run a command as root of new namespaces. Real root keeps its user; any other user
 * becomes root of a range of subordinate users, so that files can have any owner. Mounts are visible only inside,
 * and no process inside outlives the one that started it.
 */
export const inNamespaces = (): string[] => [
  ...(isRoot() ? [] : ['--user', '--map-auto', '--map-root-user']),
  ...['--mount', '--pid', '--fork', '--kill-child', '--'],
]

/**
 * Checks that the namespaces for image builds and Nix's sandbox can be made. Root needs user namespaces too, for Nix.
 * @throws Failure that says how this user can get them
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

/** The fix for the likely cause, most frequent first: a setting of the machine, no range of ids, a container. */
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
  return 'In a container they must be allowed, for example by docker run --privileged'
}

const isRoot = (): boolean => process.getuid?.() === 0

/** A kernel setting; undefined if the kernel has none of that name. */
function setting(name: string): string | undefined {
  const path = `/proc/sys/${name}`
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined
}
