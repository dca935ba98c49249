/** `just console-test-vm`, on a real QEMU without a guest. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { startQemu, stopVm } from '../../lib/vm/qemu.ts'
import { files, qemuOf, type Vm } from '../../lib/vm/vm.ts'
import { waitFor } from '../../lib/retry.ts'
import { makeBox } from '../box.ts'
import { ended, startTask } from './started.ts'

let home: string
let vm: Vm
let argv: string[]

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'console-'))
  vi.stubEnv('LAB_HOME', home)
  vi.stubEnv('XDG_RUNTIME_DIR', home)
  ;({ vm, argv } = await makeBox())
  writeFileSync(files('box').serial, 'before\n')
})
afterEach(async () => {
  await stopVm(vm, 0)
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

test('the console stays attached over a reboot or a restored snapshot, and ends with the VM', async () => {
  await startQemu(vm, argv)
  const watching = startTask('console', ['box'])
  let said = ''
  watching.stderr.on('data', (text) => (said += text))
  const attached = (times: number): Promise<true> =>
    waitFor('the console', 30, () => said.split('Attached to box').length > times || undefined)
  const came = ended(watching)
  await attached(1)
  // QEMU ends with unread input, which the console sees as a broken connection
  process.kill(qemuOf(vm)!.pid, 'SIGSTOP')
  watching.stdin.write('x')
  await new Promise((resolve) => setTimeout(resolve, 300))
  await stopVm(vm, 0)
  // what is typed meanwhile is lost
  watching.stdin.write('x')
  await startQemu(vm, argv)
  await attached(2)
  await stopVm(vm, 0)
  const { code, out, err } = await came
  expect({ code, out }).toEqual({ code: 0, out: expect.stringContaining('before') })
  expect(err).toMatch(/^box is off: just deploy-test-vm box starts it$/m)
})

test('Ctrl-] ends a console that is waiting for the next QEMU', async () => {
  await startQemu(vm, argv)
  const watching = startTask('console', ['box'])
  let said = ''
  watching.stderr.on('data', (text) => (said += text))
  const came = ended(watching)
  await waitFor('the console', 30, () => said.includes('Attached') || undefined)
  await stopVm(vm, 0)
  await waitFor('its end', 10, () => said.includes('has ended') || undefined)
  watching.stdin.write('\u001d')
  expect(await came).toMatchObject({ code: 0, err: expect.not.stringContaining('is off') })
})

test('--lines 0 prints nothing, and a VM that was never started has no log', async () => {
  const off = await ended(startTask('console', ['box', '--log', '--lines', '0']))
  expect(off).toEqual({ code: 0, out: '', err: '' })
  rmSync(files('box').serial)
  const never = await ended(startTask('console', ['box']))
  expect(never).toMatchObject({ code: 3, err: expect.stringMatching(/^console: Cannot attach to/) })
})
