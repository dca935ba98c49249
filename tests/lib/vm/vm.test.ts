import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { privateDirectory } from '../../../lib/directory.ts'
import {
  files,
  freeSlot,
  knownVms,
  lockVm,
  macs,
  newUuid,
  qemuOf,
  readVm,
  recordVm,
  theVm,
  writeJson,
  writeVm,
  type Vm,
} from '../../../lib/vm/vm.ts'
import { bootId } from '../../../lib/process.ts'

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'vm-'))
  vi.stubEnv('LAB_HOME', join(home, 'state'))
  vi.stubEnv('XDG_RUNTIME_DIR', home)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

async function make(host: string, more: Partial<Vm> = {}): Promise<Vm> {
  const held = await lockVm(host, 'make')
  const vm: Vm = {
    ...{ host, uuid: newUuid(), slot: freeSlot(host), guest: 'debian', port: 2222, memory: 1 },
    ...{ cpus: 2, disk: 1, user: 'rain', toplevel: '/nix/store/x', layer: '/x', ...more },
  }
  writeVm(vm)
  held.release()
  return vm
}

test('a record is read back unchanged, from directories that only its owner can enter', async () => {
  const vm = await make('sorrow')
  expect(readVm('sorrow')).toEqual(vm)
  expect(knownVms()).toEqual(['sorrow'])
  for (const path of [join(home, 'state'), files('sorrow').dir, files('sorrow').run]) {
    expect(lstatSync(path).mode & 0o777).toBe(0o700)
  }
  expect(lstatSync(files('sorrow').record).mode & 0o777).toBe(0o600)
  expect(readdirSync(files('sorrow').dir).filter((file) => file.includes('tmp'))).toEqual([])
})

test.each([
  '',
  'no json',
  'null',
  '{}',
  '{"host":"torment"}',
  '{"host":"sorrow","uuid":"x","port":1}',
])('a record that holds %j is refused and not changed', async (text) => {
  await make('sorrow')
  writeFileSync(files('sorrow').record, text)
  expect(() => theVm('sorrow')).toThrow('is not a record of the lab')
})

test('for a VM that does not exist the command to make it is suggested', () => {
  expect(() => theVm('gloom')).toThrow('Cannot find a VM `gloom`')
})

test('a LAB_HOME that is not a directory is refused, not treated as empty', () => {
  expect(knownVms()).toEqual([])
  writeFileSync(join(home, 'state'), '')
  expect(() => knownVms()).toThrow('it is not a directory')
  rmSync(join(home, 'state'))
  symlinkSync(join(home, 'elsewhere'), join(home, 'state'))
  expect(() => knownVms()).toThrow('it is a symlink that leads to no directory')
  rmSync(join(home, 'state'))
  mkdirSync(join(home, 'state'))
  expect(knownVms()).toEqual([])
})

test('a LAB_HOME that cannot be made is reported, even below /proc', async () => {
  vi.stubEnv('LAB_HOME', '/proc/lab/home')
  await expect(lockVm('sorrow', 'make')).rejects.toThrow(
    'Cannot make `/proc/lab/home`: no such file',
  )
})

test('symlinks instead of the directory or a record are refused', async () => {
  mkdirSync(join(home, 'elsewhere'))
  symlinkSync(join(home, 'elsewhere'), join(home, 'state'))
  await expect(lockVm('sorrow', 'make')).rejects.toThrow('it is a symlink')
  rmSync(join(home, 'state'))
  await make('sorrow')
  rmSync(files('sorrow').record)
  symlinkSync('/etc/hostname', files('sorrow').record)
  expect(() => readVm('sorrow')).toThrow('it is a symlink')
  rmSync(files('sorrow').lock)
  symlinkSync(join(home, 'target'), files('sorrow').lock)
  await expect(lockVm('sorrow', 'make')).rejects.toThrow('it is a symlink')
  expect(existsSync(join(home, 'target'))).toBe(false)
})

test('a directory that others can enter is made private', () => {
  const dir = join(home, 'open')
  mkdirSync(dir)
  chmodSync(dir, 0o755)
  privateDirectory(dir)
  expect(lstatSync(dir).mode & 0o777).toBe(0o700)
})

test('a LAB_HOME that holds files of others keeps its mode', () => {
  const state = join(home, 'state')
  mkdirSync(join(state, 'vms'), { recursive: true })
  chmodSync(state, 0o755)
  privateDirectory(state)
  expect(lstatSync(state).mode & 0o777).toBe(0o700)
  rmSync(join(state, 'vms'), { recursive: true })
  writeFileSync(join(state, 'of-others'), '')
  chmodSync(state, 0o755)
  expect(() => privateDirectory(state)).toThrow("it holds files that are not the lab's")
  expect(lstatSync(state).mode & 0o777).toBe(0o755)
})

test('a recorded pid that now belongs to another process is not the VM', async () => {
  const vm = await make('sorrow')
  writeJson(files('sorrow').running, {
    pid: process.pid,
    start: 1,
    bootId: bootId(),
    uuid: vm.uuid,
  })
  expect(qemuOf(vm)).toBeUndefined()
})

test('slots 1 and 2 are reserved for the plan’s two hosts, and no slot is given twice', async () => {
  expect((await make('gloom')).slot).toBe(3)
  expect((await make('torment')).slot).toBe(2)
  expect((await make('sorrow')).slot).toBe(1)
  expect((await make('dread')).slot).toBe(4)
  // also if several are made at once, as from a flake of new hosts
  const made = ['web', 'mail', 'git'].map(async (host) => {
    const held = await lockVm(host, 'make')
    const vm = await recordVm(host, (slot) => ({ ...theVm('dread'), host, uuid: newUuid(), slot }))
    held.release()
    return vm.slot
  })
  expect((await Promise.all(made)).toSorted()).toEqual([5, 6, 7])
  expect(macs(255).lan).toBe('52:54:00:03:00:ff')
})
