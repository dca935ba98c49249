import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { end, identify } from '../../../lib/process.ts'
import { inLab, labHome, runtimeDir } from '../../../lib/settings.ts'
import {
  abandonedCopies,
  copies,
  copyVm,
  copyWho,
  moldOf,
  removeAbandoned,
  removeCopy,
  reserveCopies,
} from '../../../lib/vm/copies.ts'
import { freeze, thaw } from '../../../lib/vm/frozen.ts'
import { ensureLabKey, labKey } from '../../../lib/vm/identity.ts'
import { startQemu } from '../../../lib/vm/qemu.ts'
import { withMonitor } from '../../../lib/vm/monitor.ts'
import { loadSnapshot, saveSnapshot, snapshotsIn, snapshotsOf } from '../../../lib/vm/snapshot.ts'
import { makeBox } from '../../box.ts'
import { files, newUuid, qemuOf, readVm, writeJson, writeVm, type Vm } from '../../../lib/vm/vm.ts'

let dir: string
const started: ChildProcess[] = []
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'copies-'))
  vi.stubEnv('LAB_HOME', join(dir, 'home'))
  vi.stubEnv('XDG_RUNTIME_DIR', dir)
})
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL')
  rmSync(dir, { recursive: true })
  vi.unstubAllEnvs()
})

/** Hashes of the files that copies share and none may write. */
const hashesIn = (of: string): string[] =>
  ['disk.qcow2', 'vars.qcow2', 'memory', 'devices'].map((name) =>
    createHash('sha256')
      .update(readFileSync(join(of, name)))
      .digest('hex'),
  )

/** A process that is found like a VM's QEMU and ignores SIGTERM. */
async function likeQemu(uuid: string): Promise<ChildProcess> {
  const script = 'trap "" TERM; echo up; while :; do sleep 0.1; done'
  const child = spawn('/bin/sh', ['-c', script, uuid], {
    argv0: 'qemu-system-x86_64',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  started.push(child)
  await once(child.stdout, 'data')
  return child
}

/** A VM of the current lab, with its process. */
async function running(host: string): Promise<{ vm: Vm; child: ChildProcess }> {
  const vm: Vm = {
    ...{ host, uuid: newUuid(), slot: 1, guest: 'debian', port: 2222, memory: 2 ** 30, cpus: 2 },
    ...{ disk: 2 ** 30, user: 'rain', toplevel: '/nix/store/x', layer: '/x' },
  }
  mkdirSync(files(host).dir, { recursive: true })
  mkdirSync(files(host).run, { recursive: true })
  writeVm(vm)
  return { vm, child: await likeQemu(vm.uuid) }
}

test('two labs in one process keep separate paths across awaits', async () => {
  const [home, sockets] = [labHome(), runtimeDir()]
  const seen = await Promise.all(
    ['one', 'two'].map((name) =>
      inLab(join(dir, name), async () => {
        await new Promise((resolve) => setTimeout(resolve, 5))
        return [files('sorrow').disk, runtimeDir()]
      }),
    ),
  )
  expect(seen.map(([disk]) => disk)).toEqual([
    join(dir, 'one/vms/sorrow/disk.qcow2'),
    join(dir, 'two/vms/sorrow/disk.qcow2'),
  ])
  expect(new Set([sockets, ...seen.map(([, run]) => run)]).size).toBe(3)
  expect(labHome()).toBe(home)
})

test('copies get the first free numbers, and are in use until released', async () => {
  const [first, second] = await reserveCopies(2)
  expect([first!.number, second!.number]).toEqual([1, 2])
  const [third] = await reserveCopies(1)
  expect(third!.number).toBe(3)
  expect(await removeAbandoned()).toEqual([])
  second!.held.release()
  expect((await abandonedCopies()).map(({ number }) => number)).toEqual([2])
  expect((await removeAbandoned()).map(({ number }) => number)).toEqual([2])
  const [again] = await reserveCopies(1)
  expect(again!.number).toBe(2)
  expect(copies().map(({ number }) => number)).toEqual([1, 2, 3])
  for (const { held } of [first!, third!, again!]) held.release()
})

test('copies that a killed run left are ended and deleted, and other VMs stay', async () => {
  const own = await running('sorrow')
  const code = `import { reserveCopies } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/vm/copies.ts'))}
await reserveCopies(2); console.log('held'); setInterval(() => {}, 1000)`
  const argv = ['--import', 'tsx', '--input-type=module', '--eval', code]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
  started.push(child)
  await once(child.stdout, 'data')
  const homes = copies().map(({ home }) => home)
  const left = await Promise.all(homes.map((home) => inLab(home, () => running('sorrow'))))
  const sockets = homes.map((home) => inLab(home, runtimeDir))
  expect(sockets.every((path) => existsSync(path))).toBe(true)
  // a run that is alive still holds them
  expect(await removeAbandoned()).toEqual([])
  child.kill('SIGKILL')
  await once(child, 'exit')
  expect((await removeAbandoned()).map(({ number }) => number)).toEqual([1, 2])
  for (const { child: qemu } of left)
    expect(qemu.signalCode ?? (await once(qemu, 'exit'))[1]).toBe('SIGKILL')
  expect(copies()).toEqual([])
  expect(sockets.some((path) => existsSync(path))).toBe(false)
  expect(qemuOf(readVm('sorrow')!)?.pid).toBe(own.child.pid)
})

test('the sockets of an abandoned copy are deleted, even in the runtime directory of another shell', async () => {
  const [copy] = await reserveCopies(1)
  // a longer path would not be used, because the lab's sockets would not fit below it
  const elsewhere = mkdtempSync(join(dir, 'e-'))
  vi.stubEnv('XDG_RUNTIME_DIR', elsewhere)
  await inLab(copy!.home, async () => {
    const { vm, child } = await running('sorrow')
    const argv = [`socket,id=keeper,path=${files('sorrow').keeperQmp},server=on`]
    writeJson(files('sorrow').running, { ...identify(child.pid!, vm.uuid), argv })
  })
  vi.stubEnv('XDG_RUNTIME_DIR', dir)
  expect(readdirSync(elsewhere)).toHaveLength(1)
  removeCopy(copy!.home)
  copy!.held.release()
  expect(readdirSync(elsewhere)).toEqual([])
})

test('a copy can be removed before it is complete', async () => {
  const [copy] = await reserveCopies(1)
  removeCopy(copy!.home)
  removeCopy(copy!.home)
  copy!.held.release()
  expect(copies()).toEqual([])
  expect(readdirSync(join(labHome(), 'copies'))).toEqual(['lock'])
})

test('copies can start from the snapshot repeatedly, and do not change what they share', async () => {
  const { vm, argv } = await makeBox()
  const f = files('box')
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', f.hostKey])
  writeFileSync(f.credential, 'who it is')
  await ensureLabKey()
  // a mark in its memory, which only a snapshot brings into a copy's memory
  const mark = join(dir, 'mark')
  writeFileSync(mark, Buffer.alloc(8, 0x5a))
  const marked = ['-device', `loader,file=${mark},addr=0x2000000,force-raw=on`]
  const { pid } = await startQemu(vm, argv, marked)
  const write = (of: Vm, byte: string): Promise<unknown> =>
    withMonitor(of, async (monitor) => {
      for (const node of ['disk0', 'efivars']) {
        const line = `qemu-io -d /machine/peripheral/${node}-device/virtio-backend "write -P ${byte} 0 64k"`
        await monitor.execute('human-monitor-command', { 'command-line': line })
      }
    })
  const status = (of: Vm): Promise<{ running: boolean }> =>
    withMonitor(of, (monitor) => monitor.execute('query-status'))
  const remembers = async (of: Vm): Promise<boolean> =>
    withMonitor(of, async (monitor) => {
      const line = { 'command-line': 'xp /2wx 0x2000000' }
      return /0x5a5a5a5a 0x5a5a5a5a/.test(await monitor.execute('human-monitor-command', line))
    })
  const holds = (byte: string): boolean[] =>
    [files('box').disk, files('box').vars].map((image) => {
      const read = ['-U', '-r', '-f', 'qcow2', '-c', `read -P ${byte} 0 64k`, image]
      return !execFileSync('qemu-io', read, { encoding: 'utf8' }).includes('failed')
    })
  await write(vm, '0x11')
  await saveSnapshot(vm, 'lab-one', 30)
  await write(vm, '0x22')
  await saveSnapshot(vm, 'saved-other', 30)
  await write(vm, '0x33')

  const held = await reserveCopies(2)
  const homes = held.map(({ home }) => home)
  const mold = moldOf(homes[0]!)
  /** Runs work in a copy, with the copy's own VM and QEMU arguments. */
  const asCopy = <T>(home: string, work: (copy: Vm, own: string[]) => Promise<T>): Promise<T> =>
    inLab(home, async () => {
      const copy = { ...vm, uuid: newUuid() }
      writeVm(copy)
      const { dir: at, run } = files('box')
      const own = argv.map((arg) =>
        arg.replaceAll(vm.uuid, copy.uuid).replaceAll(f.dir, at).replaceAll(f.run, run),
      )
      return work(copy, own)
    })
  await copyVm(vm, 'lab-one', mold)
  expect(await status(vm)).toMatchObject({ running: true })
  expect(qemuOf(vm)?.pid).toBe(pid)
  const frozen = await asCopy(mold, async (copy, own) => {
    for (const image of [files('box').disk, files('box').vars])
      expect(await snapshotsIn(image)).toEqual(['lab-one'])
    const state = await freeze(copy, 'lab-one', own, 30)
    expect(qemuOf(copy)).toBeUndefined()
    expect(holds('0x11')).toEqual([true, true])
    return state
  })
  const before = hashesIn(frozen.dir)
  const pids = await Promise.all(
    homes.map(async (home) => {
      await copyWho(vm, home)
      return asCopy(home, async (copy, own) => {
        expect(readFileSync(files('box').credential, 'utf8')).toBe('who it is')
        expect(readFileSync(labKey(), 'utf8')).toContain('PRIVATE KEY')
        const made = { ...copy, frozen }
        await thaw(made, frozen, own, 30)
        const first = qemuOf(made)?.pid
        expect(await status(made)).toMatchObject({ running: true })
        expect(await remembers(made)).toBe(true)
        await write(made, '0x44')
        await saveSnapshot(made, 'lab-two', 30)
        // its firmware restarts, and writes in its memory
        await withMonitor(made, (monitor) => monitor.execute('system_reset'))
        await write(made, '0x55')
        await loadSnapshot(made, 'lab-two', own, 30)
        expect(await remembers(made)).toBe(true)
        await loadSnapshot(made, 'lab-one', own, 30)
        expect(await snapshotsOf(made)).toEqual([])
        expect(await remembers(made)).toBe(true)
        expect(statSync(files('box').disk).blocks * 512).toBeLessThan(2 ** 20)
        // a VM that is off, and one whose QEMU was killed
        process.kill(qemuOf(made)!.pid, 'SIGKILL')
        await loadSnapshot(made, 'lab-one', own, 30)
        const { pid: last } = qemuOf(made)!
        expect(first).not.toBe(last)
        return last
      })
    }),
  )
  for (const home of homes) inLab(home, () => expect(holds('0x11')).toEqual([true, true]))
  expect(hashesIn(frozen.dir)).toEqual(before)
  expect(new Set([pid, ...pids]).size).toBe(3)
  for (const { home, held: lock } of held) {
    removeCopy(home)
    lock.release()
  }
  expect(pids.filter((one) => existsSync(`/proc/${one}/exe`))).toEqual([])
  await end(qemuOf(vm)!)
  expect(holds('0x33')).toEqual([true, true])
})
