import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { syncByUnit } from '../../../lib/scenario/dotfile-sync.ts'
import type { Machine } from '../../../lib/scenario/machine.ts'

test('what an earlier sync has written is no word of one that has written none', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'sync-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const put = (name: string, text: string): void =>
    writeFileSync(join(dir, name), text, { mode: 0o755 })
  put('journalctl', '#!/bin/sh\necho "phase: push"\n')
  const vm = {
    ...{ host: 'sorrow', patience: 1, spend: (_: string, work: () => unknown) => work() },
    root: async (script: string) => {
      const here = script.replaceAll('/var/lib/chezmoi-sync', dir)
      return spawnSync('bash', ['-c', `PATH=${dir}:$PATH; ${here}`], { encoding: 'utf8' })
    },
  } as unknown as Machine
  put('systemctl', `#!/bin/sh\necho '{"outcome":"synced"}' >${dir}/status.json\n`)
  for (const _ of [1, 2]) {
    expect(await syncByUnit(vm)).toMatchObject({ pushes: 1, status: { outcome: 'synced' } })
  }
  put('systemctl', '#!/bin/sh\nexit 1\n')
  await expect(syncByUnit(vm)).rejects.toThrow('The dotfile sync of `sorrow` has written no status')
})
