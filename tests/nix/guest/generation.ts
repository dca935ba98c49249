import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { run, type Ran, type RunOptions } from '../../../lib/run.ts'
import { project } from '../../../lib/settings.ts'

/** A temporary directory for one test, readable by the ids of a user namespace. */
export function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), 'lab-guest-'))
  chmodSync(dir, 0o755)
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** Writes files by their paths below a directory. */
export function files(dir: string, contents: Record<string, string>): void {
  for (const [path, content] of Object.entries(contents)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true })
    writeFileSync(join(dir, path), content)
  }
}

/** A generation with the layout of toplevel.nix and the guest's real scripts. */
export function generation(dir: string, contents: Record<string, string>): string {
  files(dir, {
    'configuration-limit': '0\n',
    'kernel-params': 'loglevel=4\n',
    init: '',
    ...contents,
  })
  for (const [script, path] of [
    ['activate', 'activate'],
    ['install-boot-entries', 'bin/install-boot-entries'],
  ] as const) {
    cpSync(join(project, `nix/lab/guest/${script}.sh`), join(dir, path))
    chmodSync(join(dir, path), 0o755)
  }
  return dir
}

/**
 * Runs shell commands as root of separate namespaces, in which `/etc`, `/var/lib`, `/home` and `/run` are empty
 * and writable.
 */
export function asRoot(commands: string, options: RunOptions = {}): Promise<Ran> {
  const users = process.getuid?.() === 0 ? [] : ['--user', '--map-auto', '--map-root-user']
  const fresh = ['/etc', '/var/lib', '/home', '/run']
  const mounts = fresh.map((dir) => `mount -t tmpfs -o mode=755 none ${dir}`).join(' && ')
  return run(
    'unshare',
    [...users, '--mount', '--uts', '--', 'sh', '-c', `${mounts} || exit 99\n${commands}`],
    {
      allow: [1, 2, 3, 4],
      ...options,
    },
  )
}
