import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { processesOf } from '../../lib/process.ts'
import { inLab } from '../../lib/settings.ts'
import { withMonitor } from '../../lib/vm/monitor.ts'
import { readVm } from '../../lib/vm/vm.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
beforeAll(() => {
  lab = makeLab()
})
afterAll(() => lab.remove())

const file = (name: string): string => join(lab.env['LAB_HOME']!, 'vms/sorrow', name)
const record = (name = 'vm.json') => JSON.parse(readFileSync(file(name), 'utf8'))
const qemus = () =>
  processesOf(record().uuid).filter(({ program }) => program.startsWith('qemu-system'))

test.each([
  ['SIGKILL', 'sorrow: build'],
  ['SIGINT', 'sorrow: disk and identity'],
  ['SIGKILL', 'sorrow: disk and identity'],
  ['SIGKILL', 'sorrow: start'],
  ['SIGINT', 'sorrow: wait for SSH'],
  ['SIGKILL', 'sorrow: wait for SSH'],
] as const)('%s at "%s" leaves no lock, and no second QEMU', async (signal, stage) => {
  const { code } = await lab.killAt(new RegExp(stage), signal, 'deploy-vm', 'sorrow')
  expect(code).not.toBe(0)
  if (existsSync(file('vm.json'))) expect(qemus().length).toBeLessThanOrEqual(1)
})

test('the same command then finishes the deploy, and verify passes', async () => {
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow')
  expect({ code, stderr }).toMatchObject({ code: 0 })
  expect(qemus()).toHaveLength(1)
  expect(await lab.task('verify', 'sorrow')).toMatchObject({ code: 0 })
})

test('the next deploy resumes a VM that a killed task has left paused', async () => {
  vi.stubEnv('XDG_RUNTIME_DIR', lab.dir)
  onTestFinished(() => void vi.unstubAllEnvs())
  const stop = () => withMonitor(readVm('sorrow')!, (monitor) => monitor.execute('stop'))
  await inLab(lab.env['LAB_HOME']!, stop)
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow')
  expect({ code, stderr }).toMatchObject({ code: 0 })
  expect(stderr).toContain('it was paused, and now continues')
})

test('a size that an existing VM cannot get is reported, with the command that changes it', async () => {
  const { code, stderr } = await lab.task(
    ...(['deploy-vm', 'sorrow', '--disk', '5G', '--memory', '1G', '--cpus', '3'] as const),
  )
  expect(code).toBe(0)
  expect(stderr).toMatch(/^Note: `sorrow` keeps its disk of 20\.0 GiB: one of 5\.0 GiB .*--fresh/m)
  expect(stderr).toMatch(/^Note: `sorrow` runs with 2\.0 GiB of memory: for 1\.0 GiB, just down /m)
  expect(stderr).toMatch(/^Note: `sorrow` runs with [12] CPUs: for 3, just down /m)
  expect(record()).toMatchObject({ disk: 20 * 1024 ** 3, memory: 2 * 1024 ** 3 })
  expect(record()['cpus']).not.toBe(3)
})

test('a power cut right after the first deploy loses nothing of it', async () => {
  expect(await lab.task('deploy-vm', 'sorrow', '--fresh')).toMatchObject({ code: 0 })
  expect(await lab.task('down', 'sorrow', '--now')).toMatchObject({ code: 0 })
  // a VM that is off starts with the requested memory
  expect(await lab.task('deploy-vm', 'sorrow', '--memory', '1536M')).toMatchObject({ code: 0 })
  expect(record()).toMatchObject({ memory: 1536 * 1024 ** 2 })
  expect(await lab.task('verify', 'sorrow')).toMatchObject({ code: 0 })
})

test('a second deploy of the same VM fails at once, and names the first', async () => {
  const first = lab.start('deploy-vm', 'sorrow')
  const firstLine = once(first.stderr!, 'data')
  const ended = once(first, 'close')
  await firstLine
  // stop the first task while it holds the lock: otherwise its deploy could end before the second one asks for it
  first.kill('SIGSTOP')
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow')
  first.kill('SIGCONT')
  expect(code).toBe(3)
  expect(stderr).toMatch(new RegExp(`Cannot deploy \`sorrow\`: .*deploy-vm.ts.*pid ${first.pid}`))
  await ended
})

test('down never signals another process that has the recorded pid', async () => {
  const other = spawn('sleep', ['600'])
  const running = record('qemu.json')
  writeFileSync(file('qemu.json'), JSON.stringify({ ...running, pid: other.pid }))
  expect(await lab.task('down', 'sorrow', '--now')).toMatchObject({ code: 0 })
  expect(other.exitCode ?? other.signalCode).toBeNull()
  // QEMU itself was found nevertheless, by its UUID
  expect(qemus()).toEqual([])
  other.kill('SIGKILL')
})

test('a truncated disk is refused in one line, and --fresh makes a new one', async () => {
  truncateSync(file('disk.qcow2'), 200_000)
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow')
  expect(code).toBe(3)
  expect(stderr).toMatch(/^deploy-vm: Cannot use the disk .*\n {2}hint: .*--fresh/m)
  expect(qemus()).toEqual([])
  expect(await lab.task('deploy-vm', 'sorrow', '--fresh')).toMatchObject({ code: 0 })
})

test('if the recorded port is taken, the next free one is used and recorded', async () => {
  await lab.task('down', 'sorrow', '--now')
  const { port } = record()
  const server = createServer().listen(port, '127.0.0.1')
  await once(server, 'listening')
  expect(await lab.task('deploy-vm', 'sorrow')).toMatchObject({ code: 0 })
  expect(record().port).not.toBe(port)
  const { stdout } = await lab.task('ssh', 'sorrow', 'hostname')
  expect(stdout.trim()).toBe('sorrow')
  expect(JSON.parse((await lab.task('status', '--json')).stdout)[0].port).toBe(record().port)
  server.close()
})
