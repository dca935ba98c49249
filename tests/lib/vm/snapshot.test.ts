import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { end, gone, processesOf } from '../../../lib/process.ts'
import { startQemu, stopVm } from '../../../lib/vm/qemu.ts'
import { waitFor } from '../../../lib/retry.ts'
import { CannotLoad, withMonitor } from '../../../lib/vm/monitor.ts'
import {
  deleteSnapshot,
  goOn,
  loadSnapshot,
  putBack,
  saveSnapshot,
  snapshotsOf,
  standsStill,
} from '../../../lib/vm/snapshot.ts'
import { files, qemuOf, type Vm } from '../../../lib/vm/vm.ts'
import { makeBox } from '../../box.ts'

/** A real QEMU with both disks and no guest: the disk shows what a snapshot saves and restores. */
let home: string
let vm: Vm
let argv: string[]

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'snapshot-'))
  vi.stubEnv('LAB_HOME', home)
  vi.stubEnv('XDG_RUNTIME_DIR', home)
  ;({ vm, argv } = await makeBox())
})
afterEach(async () => {
  for (const left of processesOf(vm.uuid)) await end(left)
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

const write = (byte: string): Promise<unknown> =>
  withMonitor(vm, async (monitor) => {
    for (const node of ['disk0', 'efivars']) {
      const line = `qemu-io -d /machine/peripheral/${node}-device/virtio-backend "write -P ${byte} 0 64k"`
      await monitor.execute('human-monitor-command', { 'command-line': line })
    }
  })

/** Ends QEMU and reads the disk: while QEMU runs, its images may be incomplete. */
async function holds(byte: string): Promise<boolean> {
  await off()
  const read = ['-r', '-f', 'qcow2', '-c', `read -P ${byte} 0 64k`]
  const ran = [files('box').disk, files('box').vars].map((image) =>
    spawnSync('qemu-io', [...read, image], { encoding: 'utf8' }),
  )
  return ran.every(({ stdout }) => stdout.includes('read 65536') && !stdout.includes('failed'))
}
async function off(): Promise<void> {
  const qemu = qemuOf(vm)
  if (qemu) await end(qemu)
}

test('loading a snapshot restores both disks in a new process, whether or not the VM runs', async () => {
  await startQemu(vm, argv)
  await write('0x11')
  await saveSnapshot(vm, 'lab-one', 30)
  await write('0x22')
  expect(await holds('0x22')).toBe(true)
  const { pid } = await startQemu(vm, argv)
  await loadSnapshot(vm, 'lab-one', argv, 30)
  expect(qemuOf(vm)?.pid).not.toBe(pid)
  expect(await holds('0x11')).toBe(true)

  await startQemu(vm, argv)
  await write('0x33')
  const qemu = qemuOf(vm)!
  process.kill(qemu.pid, 'SIGKILL')
  await gone(qemu, 5)
  expect(await snapshotsOf(vm)).toEqual(['lab-one'])
  await loadSnapshot(vm, 'lab-one', argv, 30)
  const { running } = await withMonitor(vm, (monitor) =>
    monitor.execute<{ running: boolean }>('query-status'),
  )
  expect(running).toBe(true)
  expect(await holds('0x11')).toBe(true)
})

test('saving under the same name replaces the snapshot, and it can be deleted', async () => {
  await startQemu(vm, argv)
  for (const byte of ['0x11', '0x22']) {
    await write(byte)
    await saveSnapshot(vm, 'lab-one', 30)
  }
  await write('0x33')
  await loadSnapshot(vm, 'lab-one', argv, 30)
  expect(await holds('0x22')).toBe(true)
  await startQemu(vm, argv)
  await deleteSnapshot(vm, 'lab-one', 30)
  expect(await snapshotsOf(vm)).toEqual([])
})

test('loading a missing snapshot does not stop a running VM', async () => {
  const { pid } = await startQemu(vm, argv)
  await expect(loadSnapshot(vm, 'lab-none', argv, 30)).rejects.toBeInstanceOf(CannotLoad)
  expect(qemuOf(vm)?.pid).toBe(pid)
  await end(qemuOf(vm)!)
  await expect(loadSnapshot(vm, 'lab-none', argv, 30)).rejects.toThrow('has no snapshot')
  // a QEMU that was started only for the load does not go on to boot
  expect(qemuOf(vm)).toBeUndefined()
})

test('a QEMU with another amount of memory does not load it', async () => {
  await startQemu(vm, argv)
  await saveSnapshot(vm, 'lab-one', 30)
  await end(qemuOf(vm)!)
  const larger = argv.map((arg) => (arg === '64' ? '128' : arg))
  await expect(loadSnapshot(vm, 'lab-one', larger, 30)).rejects.toBeInstanceOf(CannotLoad)
  expect(qemuOf(vm)).toBeUndefined()
})

test('a QEMU killed during a save leaves intact disks and no such snapshot, and the next save works', async () => {
  const { disk, vars } = files('box')
  const memory = join(home, 'memory')
  writeFileSync(memory, randomBytes(40 * 2 ** 20))
  // memory that is not empty, and a disk so slow that the save takes ten seconds
  const slow = [
    ...['-object', 'throttle-group,id=slow,x-bps-write=4194304', '-device'],
    `loader,file=${memory},addr=0x1000000,force-raw=on`,
    ...argv.map((arg) =>
      arg.includes('node-name=disk0')
        ? `qcow2,node-name=disk0,file.driver=throttle,file.throttle-group=slow,file.file.driver=file,file.file.filename=${disk}`
        : arg,
    ),
  ]
  await startQemu(vm, slow)
  const qemu = qemuOf(vm)!
  const saving = saveSnapshot(vm, 'lab-one', 60)
  const before = statSync(disk).blocks
  await waitFor('the save to be at it', 30, () => statSync(disk).blocks > before + 4096, {
    every: 0.05,
  })
  process.kill(qemu.pid, 'SIGKILL')
  await expect(saving).rejects.toThrow('QEMU ended')
  await gone(qemu, 5)
  expect(await snapshotsOf(vm)).toEqual([])
  for (const image of [disk, vars]) {
    // 3 means leaked clusters, which do no harm
    expect([0, 3]).toContain(spawnSync('qemu-img', ['check', '-q', image]).status)
  }
  await startQemu(vm, argv)
  await write('0x11')
  await saveSnapshot(vm, 'lab-one', 30)
  expect(await snapshotsOf(vm)).toEqual(['lab-one'])
})

test('a VM left paused by a task that was killed before the load can be continued', async () => {
  await startQemu(vm, argv, ['-S'])
  expect(await standsStill(vm, 5)).toBe(true)
  expect(await goOn(vm)).toBe(true)
  expect(await standsStill(vm, 5)).toBe(false)
  expect(await goOn(vm)).toBe(false)
})

test('a QEMU that cannot be recorded is ended, and no second one is started', async () => {
  await startQemu(vm, argv)
  await saveSnapshot(vm, 'lab-one', 30)
  // the record is larger than this limit
  const most = (bytes: string): string[] => [`--fsize=${bytes}:`, '--pid', String(process.pid)]
  execFileSync('prlimit', most('64'))
  try {
    await expect(putBack(vm, 'lab-one', argv, 60)).rejects.toBeInstanceOf(CannotLoad)
  } finally {
    execFileSync('prlimit', most('unlimited'))
  }
  expect(processesOf(vm.uuid)).toEqual([])
})

test('a process that a keeper starts just before it ends is ended, too', async () => {
  const loop = 'setInterval(() => {}, 1000)'
  const child = `require("node:child_process").spawn(process.execPath, ["-e", "${loop}", "${vm.uuid}"], { detached: true })`
  const keeper = `process.once("SIGTERM", () => { ${child}; setTimeout(process.exit, 100) }); ${loop}; console.log()`
  const started = spawn(process.execPath, ['-e', keeper, vm.uuid])
  await once(started.stdout, 'data')
  await stopVm(vm, 0)
  expect(processesOf(vm.uuid)).toEqual([])
})
