import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { CannotLoad } from '../../../lib/vm/monitor.ts'
import { snapshotOff } from '../../../lib/vm/snapshot.ts'
import { files, type Vm } from '../../../lib/vm/vm.ts'

const vm = { host: 'sorrow' } as Vm
let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'snapshot-'))
  vi.stubEnv('LAB_HOME', home)
  const { dir, disk, vars } = files(vm.host)
  mkdirSync(dir, { recursive: true })
  for (const image of [disk, vars]) {
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M'])
  }
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

/** Runs a qemu-io command on both disks of the VM. @returns whether it succeeds on both */
const io = (command: string): boolean =>
  [files(vm.host).disk, files(vm.host).vars].every(
    (image) => spawnSync('qemu-io', ['-f', 'qcow2', '-c', command, image]).status === 0,
  )
const fill = (byte: number): void => expect(io(`write -P ${byte} 0 64k`)).toBe(true)
const holds = (byte: number): boolean => io(`read -P ${byte} 0 64k`)

test('A snapshot of a VM that is off can be loaded repeatedly, replaced and dropped', async () => {
  fill(1)
  await snapshotOff(vm, 'save', 'x')
  fill(2)
  await snapshotOff(vm, 'save', 'x')
  fill(3)
  expect([holds(2), holds(3)]).toEqual([false, true])
  await snapshotOff(vm, 'load', 'x')
  expect([holds(2), holds(3)]).toEqual([true, false])
  fill(4)
  await snapshotOff(vm, 'load', 'x')
  expect([holds(2), holds(4)]).toEqual([true, false])
  await snapshotOff(vm, 'drop', 'x')
  await expect(snapshotOff(vm, 'load', 'x')).rejects.toBeInstanceOf(CannotLoad)
})
