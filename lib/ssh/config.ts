import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'
import { writeFile } from '../write-file.ts'

export interface SshConfigHost {
  name: string
  port: number
  user: string
  keyPath: string
  /** The pinned host key as a public key line. */
  hostKey: string
}

/**
 * Writes an ssh_config, and `known_hosts` with the pinned keys in the same directory, so that
 * `ssh -F <path> sorrow` logs in as the host's user and `sorrow-root` as root, with the pinned key
 * and nothing from the user's own configuration.
 * @throws Failure when a path cannot be written in an ssh_config
 */
export function writeSshConfig(path: string, hosts: SshConfigHost[]): void {
  const knownHosts = join(dirname(path), 'known_hosts')
  const entries = hosts.flatMap((host) => [
    sshConfigEntry(host.name, host, knownHosts),
    sshConfigEntry(`${host.name}-root`, { ...host, user: 'root' }, knownHosts),
  ])
  const pins = hosts.map(({ name, hostKey }) => `${name} ${hostKey.trim()}\n`)
  writeFile(knownHosts, pins.join(''), { mode: 0o600, over: 'any' })
  writeFile(path, entries.join('\n'), { mode: 0o600, over: 'any' })
}

const sshConfigEntry = (alias: string, host: SshConfigHost, knownHosts: string): string =>
  `Host ${alias}
  HostName 127.0.0.1
  Port ${host.port}
  User ${host.user}
  IdentityFile ${configPath(host.keyPath)}
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  HostKeyAlias ${host.name}
  UserKnownHostsFile ${configPath(knownHosts)}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  ServerAliveInterval 10
  LogLevel ERROR
`

/** ssh expands `%` and `${…}` in paths; only `%` can be escaped. */
function configPath(path: string): string {
  if (/[\n\r\0]|\$\{/.test(path)) {
    throw new Failure(`Cannot write an ssh_config: it has no way to spell the path \`${path}\``, {
      hint: 'Set LAB_HOME to a path without `${` and line breaks',
    })
  }
  return `"${path.replaceAll('%', '%%').replace(/["\\]/g, '\\$&')}"`
}
