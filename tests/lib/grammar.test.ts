import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { nixReader } from '../../lib/flake/syntax.ts'
import { parseShell } from '../../lib/mutation/bash.ts'
import { project } from '../../lib/settings.ts'

test('Two languages requested at the same time are each parsed with their own grammar', async () => {
  const [shell, open] = await Promise.all([
    parseShell('[ -e /x ] && exit'),
    nixReader({ x: '{ a = 1; }' }),
  ])
  expect([shell.type, shell.hasError]).toEqual(['program', false])
  expect([open('x').root.type, open('x').broken]).toEqual(['source_code', undefined])
})

test('a grammar is not compiled with optimisations, which take far longer than the parsing', () => {
  const task = 'node "$@" --import tsx tasks/mutate.ts golden-lib --list >/dev/null && times'
  /** Seconds of CPU: other work on this machine prolongs these less than the time that passes. */
  const cpu = (...flags: string[]): number => {
    const { stdout } = spawnSync('bash', ['-c', task, 'bash', ...flags], {
      cwd: project,
      env: { ...process.env, LAB_ENV_FILE: '' },
      encoding: 'utf8',
    })
    const [, minutes, seconds] = /\n(\d+)m([\d.]+)s/.exec(stdout)!
    return Number(minutes) * 60 + Number(seconds)
  }
  cpu() // tsx compiles only once
  expect(cpu()).toBeLessThan(1.5 * cpu('--liftoff-only'))
})
