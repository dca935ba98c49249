import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { NoJson } from '../../../lib/scenario/agent-json.ts'
import { outcome, syncByUnit } from '../../../lib/scenario/dotfile-sync.ts'
import type { Scene } from '../../../lib/scenario/family.ts'
import type { Machine } from '../../../lib/scenario/machine.ts'

test('a status left by an earlier sync does not count for one that wrote none', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'sync-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const put = (name: string, text: string): void =>
    writeFileSync(join(dir, name), text, { mode: 0o755 })
  put('journalctl', '#!/bin/sh\necho "phase: push"\n')
  const vm = {
    ...{
      host: 'sorrow',
      vm: { user: userInfo().username },
      patience: 1,
      spend: (_: string, work: () => unknown) => work(),
    },
    root: async (script: string) => {
      const here = script.replaceAll('/var/lib/chezmoi-sync', dir)
      return spawnSync('bash', ['-c', `PATH=${dir}:$PATH; ${here}`], { encoding: 'utf8' })
    },
  } as unknown as Machine
  put('systemctl', `#!/bin/sh\necho '{"outcome":"synced"}' >${dir}/status.json\n`)
  for (const _ of [1, 2]) {
    expect(await syncByUnit(vm)).toMatchObject({ pushes: 1, status: { outcome: 'synced' } })
  }
  put('systemctl', `#!/bin/sh\necho '{"outcome":"failed"}' >${dir}/status.json\nexit 1\n`)
  expect(await syncByUnit(vm)).toMatchObject({ code: 1, left: expect.any(Number) })
  // its reason has an unescaped quotation mark
  put('systemctl', `#!/bin/sh\necho '{"reason":"no "x""}' >${dir}/status.json\nexit 1\n`)
  await expect(syncByUnit(vm)).rejects.toBeInstanceOf(NoJson)
  put('systemctl', '#!/bin/sh\nexit 1\n')
  await expect(syncByUnit(vm)).rejects.toBeInstanceOf(NoJson)
})

test.each([
  ['synced', 0, 0, []],
  ['synced', 1, 0, ['sync of sorrow: whether it failed']],
  ['conflict', 1, 0, []],
  ['conflict', 0, 0, ['sync of sorrow: whether it failed']],
  ['offline', 0, 1, ['sync of sorrow: directories left in /tmp']],
])(
  'the checks of a sync with status %s, exit code %i and %i directories left',
  (said, code, left, red) => {
    const found: string[] = []
    const check = (name: string, expected: unknown, is: unknown): boolean => {
      if (expected instanceof RegExp ? !expected.test(String(is)) : expected !== is)
        found.push(name)
      return true
    }
    const synced = { status: { outcome: said }, code, left } as Parameters<typeof outcome>[3]
    const vm = { host: 'sorrow' } as Machine
    outcome({ check, must: check } as unknown as Scene, vm, said, synced)
    expect(found).toEqual(red)
  },
)
