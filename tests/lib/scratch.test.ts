import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { scratchDirectory, sweepScratch } from '../../lib/scratch.ts'

const program = (then: string): string[] => [
  ...['--import', 'tsx', '--input-type=module', '--eval'],
  `import { scratchDirectory } from ${JSON.stringify(join(project, 'lib/scratch.ts'))}
   import { endOnSignals } from ${JSON.stringify(join(project, 'lib/interrupt.ts'))}
   endOnSignals('a-task')
   scratchDirectory('one', process.env.PLACE); scratchDirectory('two', process.env.PLACE)
   ${then}`,
]

function place(): string {
  const dir = mkdtempSync(join(tmpdir(), 'scratch-test-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  return dir
}

const ended = (dir: string, then: string): void => {
  const env = { ...process.env, PLACE: dir }
  spawnSync(process.execPath, program(then), { cwd: project, env })
}

test.each([
  ['its end', ''],
  ['an error', `throw new Error('of any kind')`],
  ['Ctrl-C', `process.kill(process.pid, 'SIGINT'); setTimeout(() => {}, 60_000)`],
])('scratch directories are removed when the process ends by %s', (_, then) => {
  const dir = place()
  mkdirSync(join(dir, 'of-somebody-else'))
  ended(dir, then)
  expect(readdirSync(dir)).toEqual(['of-somebody-else'])
})

test('scratch directories of a killed process are removed by the next one, those of a living one stay', async () => {
  const dir = place()
  ended(dir, `process.kill(process.pid, 'SIGKILL'); setTimeout(() => {}, 60_000)`)
  expect(readdirSync(dir)).toHaveLength(2)
  const living = spawn(
    process.execPath,
    program(`console.log('made'); setTimeout(() => {}, 60_000)`),
    {
      ...{ cwd: project, env: { ...process.env, PLACE: dir }, stdio: ['ignore', 'pipe', 'ignore'] },
    },
  )
  onTestFinished(() => void living.kill('SIGKILL'))
  await once(living.stdout!, 'data')
  const its = readdirSync(dir)
  expect(its).toHaveLength(2)
  expect(its.every((entry) => entry.startsWith(`vmlab-scratch-${living.pid}-`))).toBe(true)
  ended(dir, '')
  expect(readdirSync(dir)).toEqual(its)
  living.kill('SIGKILL')
  await once(living, 'exit')
  sweepScratch(dir)
  expect(readdirSync(dir)).toEqual([])
})

test('a missing parent directory is reported', () => {
  expect(() => scratchDirectory('one', '/nonexistent/nix-shell.x')).toThrow(
    'Cannot use `/nonexistent/nix-shell.x`: it does not exist',
  )
})
