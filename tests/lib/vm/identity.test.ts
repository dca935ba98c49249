import { mkdtempSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  ensureIdentity,
  ensureLabKey,
  sshConfig,
  writeSshConfigOfAll,
} from '../../../lib/vm/identity.ts'
import { files, newUuid, writeVm, type Vm } from '../../../lib/vm/vm.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'identity-'))
  process.env['LAB_HOME'] = dir
})
afterEach(() => {
  delete process.env['LAB_HOME']
  rmSync(dir, { recursive: true, force: true })
})

function record(host: string, slot: number): Vm {
  const vm: Vm = {
    ...{ host, slot, uuid: newUuid(), guest: 'debian', port: 2221 + slot, cpus: 2 },
    ...{ memory: 2 ** 31, disk: 2 ** 34, user: 'rain', toplevel: '/nix/store/x', layer: '/x' },
  }
  mkdirSync(files(host).dir, { recursive: true })
  writeVm(vm)
  return vm
}

test('a VM that has its record and not yet its key is no obstacle to another', async () => {
  await ensureLabKey()
  const one = record('one', 1)
  const two = record('two', 2)
  await ensureIdentity(one)
  writeSshConfigOfAll()
  expect(readFileSync(sshConfig(), 'utf8').match(/^Host .*/gm)).toEqual([
    'Host one',
    'Host one-root',
  ])
  await ensureIdentity(two)
  writeSshConfigOfAll()
  expect(readFileSync(sshConfig(), 'utf8').match(/^Host .*/gm)).toEqual([
    ...['Host one', 'Host one-root', 'Host two', 'Host two-root'],
  ])
})
