import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '../../../lib/retry.ts'
import type { SshTarget } from '../../../lib/ssh/ssh.ts'

/** Why sshd cannot be started here, or undefined. */
export const noSshd = existsSync('/usr/sbin/sshd') ? undefined : 'openssh-server is not installed'

export interface Sshd {
  dir: string
  target: SshTarget
  start: () => Promise<void>
  /** Signals sshd and all processes that it started. */
  signal: (name: NodeJS.Signals) => void
  /** Ends them all and removes the directory. */
  stop: () => Promise<void>
}

/**
 * A real sshd on a free port of 127.0.0.1, not started yet, with its own host key and one authorized key. Its directory
 * is the home of sessions, because the start-up files of a user's own shell take time and must not be killed half-way.
 * @param settings lines of sshd_config
 */
export async function makeSshd(settings: string[] = [], hostKeyType = 'ed25519'): Promise<Sshd> {
  const dir = mkdtempSync(join(tmpdir(), 'sshd-'))
  const [keyPath, hostKey, config] = ['id', 'host', 'sshd_config'].map((file) => join(dir, file))
  keygen(keyPath!)
  keygen(hostKey!, hostKeyType)
  const port = await freePort()
  const lines = `
    ListenAddress 127.0.0.1:${port}
    HostKey ${hostKey}
    PidFile ${dir}/pid
    AuthorizedKeysFile ${keyPath}.pub
    StrictModes no
    UsePAM no
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    SetEnv HOME=${dir}
  `
  writeFileSync(config!, [lines, ...settings, ''].join('\n'))
  // sshd needs this directory when root starts it; it is missing if the service never ran
  const run = '/run/sshd'
  const makeRun = userInfo().uid === 0 && !existsSync(run)
  let child: ChildProcess | undefined

  const processes = (): number[] => [...below(child?.pid), ...sessionsOn(port)]
  const start = async (): Promise<void> => {
    if (makeRun) mkdirSync(run, { recursive: true, mode: 0o755 })
    child = spawn('/usr/sbin/sshd', ['-D', '-f', config!], { stdio: 'ignore' })
    await waitFor('sshd to listen', 20, () => listens(port), { every: 0.02 })
  }
  const signal = (name: NodeJS.Signals): void => {
    for (const pid of processes()) sendSignal(pid, name)
  }
  const stop = async (): Promise<void> => {
    await waitFor('sshd and its sessions to end', 20, () => {
      signal('SIGKILL')
      return processes().length === 0
    })
    rmSync(dir, { recursive: true })
    if (makeRun) rmSync(run, { recursive: true, force: true })
  }
  const target = {
    port,
    user: userInfo().username,
    keyPath: keyPath!,
    hostKey: readFileSync(`${hostKey}.pub`, 'utf8'),
  }
  return { dir, target, start, signal, stop }
}

export function keygen(path: string, type = 'ed25519'): void {
  execFileSync('ssh-keygen', ['-q', '-t', type, '-N', '', '-C', 'test key', '-f', path])
}

export const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

export const listens = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })

/** A process and all its living descendants. */
function below(root: number | undefined): number[] {
  const parents = new Map(pids().map((pid) => [pid, parentOf(pid)]))
  const found = parents.get(root ?? 0) === undefined ? [] : [root!]
  for (const pid of found) {
    for (const [child, parent] of parents) if (parent === pid) found.push(child)
  }
  return found
}

/** The sessions of an sshd, which outlive it; sshd puts its address into their environment. */
const sessionsOn = (port: number): number[] =>
  pids().filter(
    (pid) =>
      /^SSH_CONNECTION=.* (\d+)$/m.exec(proc(pid, 'environ').replaceAll('\0', '\n'))?.[1] ===
        String(port) && parentOf(pid) !== undefined,
  )

const pids = (): number[] => readdirSync('/proc').map(Number).filter(Boolean)

/** Undefined for a process that is gone or only waits to be reaped. */
function parentOf(pid: number): number | undefined {
  const [, state, parent] = /\) (\w) (\d+)/.exec(proc(pid, 'stat')) ?? []
  return state === undefined || state === 'Z' ? undefined : Number(parent)
}

function proc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}

function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // it ended meanwhile
  }
}
