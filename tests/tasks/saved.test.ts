/** `just save`, `just restore`, `just screenshot`, `just status` and `just destroy-test-vm`, on a real QEMU without a guest. */
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { startQemu, stopVm } from '../../lib/vm/qemu.ts'
import { withMonitor } from '../../lib/vm/monitor.ts'
import { files, keepersOf, qemuOf, readVm, writeVm, type Vm } from '../../lib/vm/vm.ts'
import { makeBox } from '../box.ts'
import { ended, startTask, type Ended } from './started.ts'

let home: string
let vm: Vm
let argv: string[]

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'saved-'))
  vi.stubEnv('LAB_HOME', home)
  vi.stubEnv('XDG_RUNTIME_DIR', home)
  ;({ vm, argv } = await makeBox())
})
afterEach(async () => {
  await stopVm(vm, 0)
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

const task = (name: string, ...args: string[]): Promise<Ended> => ended(startTask(name, args))

const write = (byte: string): Promise<unknown> =>
  withMonitor(vm, (monitor) => {
    const line = `qemu-io -d /machine/peripheral/disk0-device/virtio-backend "write -P ${byte} 0 64k"`
    return monitor.execute('human-monitor-command', { 'command-line': line })
  })

/** Ends QEMU and its keeper, and reads the disk. */
async function holds(byte: string): Promise<boolean> {
  await stopVm(vm, 0)
  const io = ['-r', '-f', 'qcow2', '-c', `read -P ${byte} 0 64k`, files('box').disk]
  const { stdout } = spawnSync('qemu-io', io, { encoding: 'utf8' })
  return stdout.includes('read 65536') && !stdout.includes('failed')
}
const tags = (): string[] => {
  const out = execFileSync('qemu-img', ['info', '--output=json', files('box').disk])
  const { snapshots = [] } = JSON.parse(out.toString()) as { snapshots?: { name: string }[] }
  return snapshots.map(({ name }) => name)
}

test('restore brings back the saved state, whether or not the VM runs', async () => {
  await startQemu(vm, argv)
  await write('0x11')
  expect(await task('save', 'box')).toMatchObject({
    code: 0,
    out: 'Saved box, as `default`: just restore box default\n',
  })
  await write('0x22')
  writeVm({ ...readVm('box')!, toplevel: '/nix/store/y' })
  const here = await task('restore', 'box')
  expect(here).toMatchObject({ code: 0, err: '' })
  expect(here.out).toMatch(/^Put box back to `default`, saved at .*Z$/m)
  // the VM has no guest, and the task says so instead of waiting for one
  expect(here.out).toMatch(/^Its clock goes on from then: no guest agent answers/m)
  expect(readVm('box')!.toplevel).toBe('/nix/store/x')
  expect(keepersOf(vm)).toHaveLength(1)
  expect(await holds('0x11')).toBe(true)

  const anew = await task('restore', 'box', '--json')
  expect(JSON.parse(anew.out)).toMatchObject({
    host: 'box',
    tag: expect.stringMatching(/^saved-default-/),
    clock: false,
  })
  expect(await holds('0x11')).toBe(true)
})

test('restore brings back the saved memory size and uplink, even if the VM was restarted with others', async () => {
  await startQemu(vm, [...argv, '-fw_cfg', 'name=opt/lab/open-uplink,string=1'])
  await task('save', 'box')
  await stopVm(vm, 0)
  writeVm({ ...vm, memory: 2 ** 27, openUplink: false })
  await startQemu(
    vm,
    argv.map((arg) => (arg === '64' ? '128' : arg)),
  )
  expect(await task('restore', 'box')).toMatchObject({ code: 0 })
  // the record says that the uplink is open, so that status shows it
  expect(readVm('box')).toMatchObject({ memory: 2 ** 26, openUplink: true })
  const command = readFileSync(`/proc/${qemuOf(vm)!.pid}/cmdline`, 'utf8')
  expect(command).toContain('\0-m\x0064\0')
})

test('restore of a VM that is off uses another port if its own is taken', async () => {
  const nic = ['-netdev', 'user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:2999-:22']
  const taken = createServer()
  await startQemu(vm, [...argv, ...nic])
  await task('save', 'box')
  await stopVm(vm, 0)
  await once(taken.listen(2999, '127.0.0.1'), 'listening')
  try {
    expect(await task('restore', 'box')).toMatchObject({ code: 0, err: '' })
  } finally {
    taken.close()
  }
  const { port } = readVm('box')!
  expect(port).not.toBe(2999)
  expect(readFileSync(`/proc/${qemuOf(vm)!.pid}/cmdline`, 'utf8')).toContain(`:${port}-:22`)
})

test('a VM that is off is saved and restored by its disks, and stays off', async () => {
  await startQemu(vm, argv)
  await write('0x11')
  await stopVm(vm, 0)
  const saved = await task('save', 'box', 'cold')
  expect(saved.out).toBe('Saved box, which is off, as `cold`: just restore box cold\n')
  await startQemu(vm, argv)
  await write('0x22')
  const { code, out } = await task('restore', 'box', 'cold')
  expect({ code, out }).toEqual({ code: 0, out: expect.stringContaining('it is off, as it was') })
  expect(qemuOf(vm)).toBeUndefined()
  expect(await holds('0x11')).toBe(true)
})

test('a saved state can be overwritten, listed and deleted, and then takes no space', async () => {
  await startQemu(vm, argv)
  for (const byte of ['0x11', '0x22']) {
    await write(byte)
    expect(await task('save', 'box', 'one')).toMatchObject({ code: 0 })
  }
  await task('save', 'box', 'two')
  const { out } = await task('restore', 'box', '--list', '--json')
  const list = JSON.parse(out) as { name: string; running: boolean }[]
  expect(list.map(({ name, running }) => [name, running])).toEqual([
    ['two', true],
    ['one', true],
  ])
  const unknown = await task('restore', 'box', 'tow')
  expect(unknown).toMatchObject({ code: 2, out: '' })
  expect(unknown.err).toBe(
    'restore: Cannot find anything saved of `box` as `tow`\n  hint: saved are two, one\n',
  )
  expect(qemuOf(vm)).toBeDefined()
  await task('restore', 'box', 'one')
  expect(await task('save', 'box', 'two', '--delete')).toMatchObject({ code: 0 })
  expect(await holds('0x22')).toBe(true)
  expect(tags()).toHaveLength(1)
  expect(await task('save', 'box', 'one', '--delete')).toMatchObject({ code: 0 })
  expect(tags()).toEqual([])
})

test('invalid names, and a VM without a saved state, are refused without a change', async () => {
  for (const name of ['../x', 'a b', '']) {
    expect(await task('save', 'box', name)).toMatchObject({ code: 2 })
  }
  const none = await task('restore', 'box')
  expect(none.err).toContain('Nothing is saved of it: just save box default')
  expect(existsSync(join(files('box').dir, 'saved.json'))).toBe(false)
  const other = await task('restore', 'bax')
  expect(other.err).toMatch(/^restore: Cannot find a VM `bax`\n {2}hint: The nearest is box; /)
})

test('a shell with another runtime directory finds a VM, and starts it with its own sockets', async () => {
  await startQemu(vm, argv)
  const other = join(home, 'other')
  mkdirSync(other)
  const there = (name: string, ...args: string[]) =>
    ended(startTask(name, args, { XDG_RUNTIME_DIR: other }))
  expect(await there('save', 'box')).toMatchObject({ code: 0, err: '' })
  expect(await there('screenshot', 'box', join(home, 'x.png'))).toMatchObject({ code: 0, err: '' })
  expect((await there('status')).out).toMatch(/^box +unattended/m)
  const { run } = files('box')
  expect(await there('down', '--now')).toMatchObject({ code: 0 })
  expect([existsSync(run), readdirSync(other)]).toEqual([false, []])
  // and the other way round: the saved state names other paths
  expect(await there('restore', 'box')).toMatchObject({ code: 0, err: '' })
  expect(files('box').run.startsWith(other)).toBe(true)
  expect(await task('save', 'box')).toMatchObject({ code: 0, err: '' })
})

test('screenshot saves the firmware’s screen as PNG, even if no guest answers', async () => {
  await startQemu(vm, argv)
  const path = join(home, 'screen.png')
  expect(await task('screenshot', 'box', path)).toEqual({ code: 0, out: `${path}\n`, err: '' })
  const png = readFileSync(path)
  expect(png.subarray(1, 4).toString()).toBe('PNG')
  // SeaBIOS writes in 720x400
  expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([720, 400])
  mkdirSync(join(home, 'shots'))
  await task('screenshot', '--host', 'box', join(home, 'shots'))
  expect(readdirSync(join(home, 'shots'))).toEqual([
    expect.stringMatching(/^box-\d{8}T\d{6}\.png$/),
  ])
  expect(readdirSync(files('box').dir).filter((file) => file.endsWith('.png'))).toEqual([])
})

test('screenshot of a VM that is off, or to a missing directory, is refused in one line', async () => {
  const off = await task('screenshot', 'box', join(home, 'x.png'))
  expect(off).toMatchObject({ code: 3, out: '' })
  expect(off.err).toMatch(/^screenshot: Cannot take a screenshot of `box`: it is not running\n/)
  await startQemu(vm, argv)
  const nowhere = await task('screenshot', 'box', join(home, 'none/x.png'))
  expect(nowhere).toMatchObject({ code: 2, err: expect.stringContaining('there is no directory') })
})

test('status does not wait for a VM that is off, and at most 5 s for a guest that does not answer', async () => {
  const from = performance.now()
  const off = await task('status')
  const quick = performance.now() - from
  expect(off.out).toMatch(/^box +stopped +debian +none +\d+ MiB$/m)
  await startQemu(vm, argv)
  const silent = await task('status')
  expect(silent.code).toBe(0)
  expect(silent.out).toMatch(/^box +unattended +debian +no answer/m)
  expect(silent.out).toContain('`box` does not answer within 5 s: just screenshot box shows')
  const took = performance.now() - from - quick
  // five seconds for the guest, and the start of node
  expect(took).toBeLessThan(5000 + quick * 2 + 2000)
  await withMonitor(vm, (monitor) => monitor.execute('stop'))
  const paused = await task('status')
  expect(paused.out).toMatch(/^box +paused +debian +no answer/m)
  expect(paused.out).toContain('box is paused: just deploy-test-vm box resumes it')
  await withMonitor(vm, (monitor) => monitor.execute('cont'))
  // a QEMU that is stopped as a whole, as by a full disk of the host
  process.kill(qemuOf(vm)!.pid, 'SIGSTOP')
  try {
    const frozen = JSON.parse((await task('status', '--json')).out) as object[]
    expect(frozen).toEqual([
      expect.objectContaining({ state: 'unattended', silent: expect.stringContaining('5 s') }),
    ])
  } finally {
    process.kill(qemuOf(vm)!.pid, 'SIGCONT')
  }
})

test.each([['qemu.json'], ['vm.json'], ['vm.json', 'qemu.json']])(
  'destroy deletes a running VM and ends its QEMU even if %s is unreadable',
  async (...records) => {
    const { pid } = await startQemu(vm, argv)
    for (const name of records) writeFileSync(join(files('box').dir, name), '{')
    expect(await task('destroy', 'box', '--yes')).toEqual({
      code: 0,
      out: 'Deleted box\n',
      err: '',
    })
    expect([existsSync(`/proc/${pid}`), existsSync(files('box').dir)]).toEqual([false, false])
    expect(existsSync(files('box').run)).toBe(false)
  },
)
