import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { run } from '../../../lib/run.ts'
import { upgradeUnit } from '../../../lib/scenario/upgrade-unit.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lab-upgrade-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

/** An upgrade on a machine whose systemctl gives these answers, one for each time that the state is asked. */
async function upgraded(
  start: string,
  states: string[],
): Promise<{ result: string; asked: number }> {
  const script = (name: string, text: string): void => {
    writeFileSync(join(dir, name), `#!/bin/sh\n${text}\n`)
    chmodSync(join(dir, name), 0o755)
  }
  writeFileSync(join(dir, 'states'), states.map((state) => `${state}\n`).join(''))
  script('journalctl', 'echo said')
  script('sleep', ':')
  script(
    'systemctl',
    `case $* in
    # without it, the sixth start within 10 s is refused
    reset-failed*) : >${dir}/counted-anew ;;
    start*) rm ${dir}/counted-anew || exit 1; ${start} ;;
    *ActiveState*)
      echo >>${dir}/asked
      state=$(head -n 1 ${dir}/states)
      sed -i 1d ${dir}/states
      [ -n "$state" ] && echo "ActiveState=$state" ;;
    *) [ -s ${dir}/states ] && echo Result=success || echo Result=exit-code; echo InvocationID=1 ;;
    esac`,
  )
  writeFileSync(join(dir, 'asked'), '')
  const root = async (command: string) => {
    const { stdout, stderr } = await run('sh', ['-c', `PATH=${dir}:$PATH; ${command}`])
    return { stdout, stderr, code: 0 }
  }
  const needs = { host: 'sorrow', root, note: () => 1, say: () => {}, seconds: (of: number) => of }
  const unit = upgradeUnit(needs as unknown as Parameters<typeof upgradeUnit>[0])
  const { result } = await unit.upgrade({ limit: 20 })
  const { stdout } = await run('wc', ['-l', join(dir, 'asked')])
  return { result, asked: Number.parseInt(stdout) }
}

test('A unit that keeps running after systemd re-executed itself is waited for', async () => {
  // while it starts anew, systemd does not answer for a moment
  const states = ['activating', '', 'activating', 'failed']
  expect(await upgraded('exit 1', states)).toEqual({ result: 'exit-code', asked: 4 })
})

test('A unit that has ended is not waited for', async () => {
  expect(await upgraded('exit 1', ['failed'])).toEqual({ result: 'exit-code', asked: 1 })
  expect(await upgraded('exit 0', [])).toEqual({ result: 'exit-code', asked: 0 })
})
