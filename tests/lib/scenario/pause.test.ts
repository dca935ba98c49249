import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import type { CaseResult } from '../../../lib/report/result.ts'
import { inWords } from '../../../lib/scenario/pause.ts'
import { project } from '../../../lib/settings.ts'
import { ended, startTask } from '../../tasks/started.ts'

const failed: CaseResult = {
  ...{ family: 'break-boot', case: 'panic', title: 'a kernel that panics', hosts: ['sorrow'] },
  ...{ state: 'failed', reason: 'golden boots: expected yes, found no', seconds: 9, seed: 7 },
  checks: [
    { name: 'it panics', held: true, expected: 'yes', found: 'yes' },
    { name: 'golden boots', held: false, expected: 'yes', found: 'no' },
  ],
  oracle: [
    { host: 'sorrow', name: 'profile', state: 'failed', expected: '/nix/a', found: '/nix/b' },
  ],
  replay: 'just break-boot sorrow --case panic --seed 7',
  evidence: '/runs/x/evidence/break-boot-panic',
}

test('a pause says what was expected and found, and how to log in to both VMs', () => {
  const text = inWords(failed, ['sorrow', 'torment'])
  expect(text).toContain('golden boots\n  expected yes\n  found    no\n')
  expect(text).toContain('oracle: sorrow profile\n  expected /nix/a\n  found    /nix/b\n')
  expect(text).not.toContain('it panics')
  expect(text).toMatch(/^sorrow is as the case left it:\n {2}ssh -F \S+ssh_config sorrow\n/m)
  expect(text).toMatch(/^ {2}ssh -F \S+ssh_config sorrow-root$/m)
  expect(text).toMatch(
    /^torment finishes the case that it is in, then waits:\n {2}ssh -F .* torment$/m,
  )
  const late = inWords({ ...failed, checks: [], oracle: [], hosts: ['sorrow', 'torment'] }, [])
  expect(late).toContain(`\n${failed.reason}\n`)
  expect(late).toContain('sorrow and torment are as the case left them:')
})

test('--pause without a terminal is refused before anything starts', async () => {
  const { code, out, err } = await ended(startTask('break-boot', ['--case', 'panic', '--pause']))
  expect({ code, out }).toEqual({ code: 2, out: '' })
  expect(err).toMatch(
    /^break-boot: Cannot pause: there is no terminal to wait at\n {2}hint: .*--keep/,
  )
})

test('at a terminal each failed case waits for Enter in turn, and no other case begins meanwhile', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'pause-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const piece = join(dir, 'piece.mts')
  writeFileSync(
    piece,
    `import { pauses } from '${project}/lib/scenario/pause.ts'
const pause = pauses()
const failed = ${JSON.stringify(failed)}
await pause.over()
console.log('began')
const two = [pause.at(failed, []), pause.at({ ...failed, case: 'hang' }, [])]
two[0].then(() => console.log('first went on'))
await pause.over()
console.log('the next case begins')
`,
  )
  const command = `${process.execPath} --import tsx ${piece}`
  const terminal = spawn('script', ['--quiet', '--flush', '--command', command, '/dev/null'], {
    cwd: project,
    env: { ...process.env, SHELL: '/bin/sh' },
  })
  const closed = new Promise((resolve) => terminal.once('close', resolve))
  let screen = ''
  terminal.stdout.on('data', (chunk: Buffer) => (screen += chunk.toString()))
  const shows = async (text: string): Promise<void> => {
    for (let tries = 0; !screen.includes(text); tries++) {
      if (tries > 300) throw new Error(`no ${text} on the screen: ${screen}`)
      await sleep(50)
    }
  }
  await shows('Enter to go on')
  expect(screen).toContain('Paused: break-boot panic')
  await sleep(300)
  expect(screen).not.toContain('went on')
  expect(screen).not.toContain('hang')
  terminal.stdin.write('\r')
  await shows('first went on')
  await shows('Paused: break-boot hang')
  expect(screen).not.toContain('the next case begins')
  terminal.stdin.write('\r')
  await shows('the next case begins')
  expect(await closed).toBe(0)
})
