import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'

/**
 * A user made for this test, with a separate clone: everything but the package install has to work for an
 * ordinary user, from the image on. If the suite itself runs as such a user, every test shows that.
 */
const user = `lab${process.pid}`
const isRoot = process.getuid?.() === 0
let home: string
let clone: string

beforeAll(() => {
  if (!isRoot) return
  // not in TMPDIR, which other users cannot read
  home = mkdtempSync('/tmp/lab-user-')
  chmodSync(home, 0o755)
  clone = join(home, 'clone')
  execFileSync('useradd', ['--home-dir', home, '--shell', '/bin/bash', user])
  const list = execFileSync('git', ['ls-files'], { cwd: project, encoding: 'utf8' })
  for (const file of list.trim().split('\n')) {
    mkdirSync(dirname(join(clone, file)), { recursive: true })
    cpSync(join(project, file), join(clone, file))
  }
  // keep relative links: npx would follow an absolute one to a place that this user cannot read
  const asIs = { recursive: true, verbatimSymlinks: true }
  cpSync(join(project, 'node_modules'), join(clone, 'node_modules'), asIs)
  execFileSync('chown', ['--recursive', `${user}:`, home])
  // a flake sees only files that git tracks
  execFileSync('runuser', ['-u', user, '--', 'git', '-C', clone, 'init', '--quiet'])
  execFileSync('runuser', ['-u', user, '--', 'git', '-C', clone, 'add', '--all'])
})
afterAll(() => {
  if (!isRoot) return
  spawnSync('pkill', ['-KILL', '-u', user])
  spawnSync('userdel', [user])
  rmSync(home, { recursive: true, force: true })
})

/** Starts a shell line as that user, as in a login. */
function as(line: string): ChildProcess {
  return spawn('runuser', ['-l', user, '-c', `cd ${clone} && ${line}`], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

async function ended(
  child: ChildProcess,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  let [stdout, stderr] = ['', '']
  child.stdout!.on('data', (data: Buffer) => (stdout += data.toString()))
  child.stderr!.on('data', (data: Buffer) => (stderr += data.toString()))
  const [code] = await once(child, 'close')
  return { code, stdout, stderr }
}

/** Processes of that user; a zombie that is not reaped yet counts as ended. */
const running = (pattern: string): string[] =>
  spawnSync('pgrep', ['-u', user, '-af', pattern], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter((line) => line && !line.includes('<defunct>'))

test('an ordinary user can repeat a deploy that was killed while the image was built', async (context) => {
  if (!isRoot) context.skip('only root can make another user; every other test ran as this one')
  const command = 'CI=true npx just deploy-test-vm sorrow'
  const first = as(command)
  createInterface({ input: first.stderr! }).on('line', (line) => {
    if (line.includes('Debian packages'))
      setTimeout(() => spawnSync('pkill', ['-KILL', '-u', user, 'node']), 5000)
  })
  expect((await ended(first)).code).not.toBe(0)
  // nothing goes on in the background
  expect(running('mmdebstrap|apt-get')).toEqual([])

  const second = await ended(as(command))
  expect(second.code, second.stderr).toBe(0)
  expect(second.stderr).toMatch(/lab: (kvm: a probe guest ran on it|tcg: )/)
  const verified = await ended(as('npx just verify-test-vms'))
  expect(verified.code, verified.stdout + verified.stderr).toBe(0)
  const down = await ended(as('npx just down'))
  expect(down.code, down.stderr).toBe(0)
  expect(running('qemu-system|keeper')).toEqual([])
})
