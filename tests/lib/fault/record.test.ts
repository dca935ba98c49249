import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { keepCables } from '../../../lib/fault/cable.ts'
import { endFaults, heal, inject, list } from '../../../lib/fault/lease.ts'
import {
  activeFaults,
  faultFile,
  lockFaults,
  recordFaults,
  recordedFaults,
} from '../../../lib/fault/record.ts'
import type { Fault } from '../../../lib/fault/fault.ts'
import type { QmpEvent } from '../../../lib/vm/qmp.ts'
import { waitFor } from '../../../lib/retry.ts'
import { newUuid, qemuOf, writeVm, type Vm } from '../../../lib/vm/vm.ts'

let vm: Vm
let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'fault-'))
  process.env['LAB_HOME'] = home
  vm = {
    ...{ host: 'sorrow', uuid: newUuid(), slot: 1, guest: 'debian', port: 2222, user: 'rain' },
    ...{ memory: 1, cpus: 1, disk: 1, toplevel: '/nix/store/x', layer: '/x' },
  }
  mkdirSync(dirname(faultFile('sorrow')), { recursive: true })
  writeVm(vm)
})
afterEach(() => {
  delete process.env['LAB_HOME']
  rmSync(home, { recursive: true })
})

const fault = (more: Partial<Fault> = {}): Fault => ({
  id: 'f1',
  kind: 'cut',
  link: 'uplink',
  host: 'sorrow',
  direction: 'both',
  since: Date.now(),
  until: Date.now() + 60_000,
  state: 'active',
  qemu: { pid: process.pid, start: 1 },
  before: { least: 1, median: 1 },
  ...more,
})

test('recorded faults are read back, and recording none removes the file', () => {
  expect(recordedFaults('sorrow')).toEqual([])
  recordFaults('sorrow', [fault()])
  expect(recordedFaults('sorrow')).toMatchObject([{ id: 'f1', kind: 'cut' }])
  recordFaults('sorrow', [])
  expect(existsSync(faultFile('sorrow'))).toBe(false)
})

test.each(['', '{', '{}', '[{}]', '[null]', '[{"id":"f1","kind":"x"}]', '["f1"]'])(
  'a record that holds %o is refused, and heal removes it',
  async (text) => {
    writeFileSync(faultFile('sorrow'), text)
    expect(() => recordedFaults('sorrow')).toThrow(/it is not a record of faults/)
    expect(readFileSync(faultFile('sorrow'), 'utf8')).toBe(text)
    expect(await heal(vm)).toEqual([])
    expect(existsSync(faultFile('sorrow'))).toBe(false)
  },
)

test('a VM that does not run has no active fault, and heal reports its recorded faults as gone', async () => {
  recordFaults('sorrow', [fault(), fault({ id: 'f2', link: 'lan' })])
  expect(activeFaults(vm)).toEqual([])
  expect(await list(vm)).toEqual([])
  expect(await heal(vm, ['lan'])).toEqual(['cut on lan of sorrow: gone with QEMU'])
  expect(recordedFaults('sorrow')).toMatchObject([{ id: 'f1' }])
  await endFaults(vm)
  expect(recordedFaults('sorrow')).toEqual([])
})

test('endFaults clears the record while QEMU is still exiting, and releases the lock', async () => {
  // as after a reboot of the guest: the process still exists, but has no monitor
  const ending = spawn('sh', ['-c', 'sleep 60; :', vm.uuid], { argv0: 'qemu-system-x86_64' })
  try {
    await waitFor('it to be seen', 10, () => qemuOf(vm))
    recordFaults('sorrow', [fault()])
    await endFaults(vm)
    expect(recordedFaults('sorrow')).toEqual([])
    const { release } = await lockFaults('sorrow')
    release()
  } finally {
    ending.kill('SIGKILL')
  }
})

test('injecting into a VM that does not run fails, and records nothing', async () => {
  const cut = { kind: 'cut', link: 'uplink', direction: 'both', lease: 60 } as const
  await expect(inject({ ...cut, hosts: ['sorrow'] })).rejects.toThrow(/it is not running/)
  await expect(inject({ ...cut, hosts: ['torment'] })).rejects.toThrow(/Cannot find a VM `torment`/)
  expect(existsSync(faultFile('sorrow'))).toBe(false)
})

/** The monitor's calls that the keeper makes; their effect on a VM is tested in tests/e2e. */
function watched() {
  const calls: string[] = []
  const listeners: ((event: QmpEvent) => void)[] = []
  const notes: object[] = []
  let close!: () => void
  const closed = new Promise<void>((resolve) => (close = resolve))
  const execute = async (_: string, args?: object): Promise<never> => {
    const { name, up } = args as { name: string; up: boolean }
    calls.push(`${name} ${up ? 'in' : 'out'}`)
    return undefined as never
  }
  const on = (listener: (event: QmpEvent) => void) => {
    listeners.push(listener)
    return () => true
  }
  keepCables('sorrow', { execute, on, closed }, (note) => notes.push(note.data ?? {}))
  return {
    calls,
    notes,
    close,
    say: (event: string) => listeners.forEach((tell) => tell({ event })),
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

test('a keeper pulls the cable of a recorded cut, and plugs it back in when the lease ends', async () => {
  const { calls, notes, close } = watched()
  await pause(600)
  expect(calls).toEqual(['uplink-nic in', 'lan-nic in'])
  recordFaults('sorrow', [fault({ since: Date.now(), until: Date.now() + 1700 })])
  await pause(2600)
  close()
  // out, once more after a second, and in
  expect(calls.slice(2)).toEqual(['uplink-nic out', 'uplink-nic out', 'uplink-nic in'])
  expect(notes).toEqual([
    { link: 'uplink', up: false },
    { link: 'uplink', up: true },
  ])
})

test('a keeper sets every cable again after a snapshot was loaded, and stops with its QEMU', async () => {
  const { calls, close, say } = watched()
  await pause(600)
  say('RESUME')
  await pause(600)
  expect(calls).toEqual(['uplink-nic in', 'lan-nic in', 'uplink-nic in', 'lan-nic in'])
  close()
  await pause(50)
  recordFaults('sorrow', [fault()])
  await pause(600)
  expect(calls).toHaveLength(4)
})
