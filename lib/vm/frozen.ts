import { rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { optionValue } from './accelerator.ts'
import { quote } from '../quote.ts'
import { run } from '../run.ts'
import { waitFor } from '../retry.ts'
import { CannotLoad, loadPaused, withMonitor } from './monitor.ts'
import { ensureKeeper, startQemu, stopVm } from './qemu.ts'
import type { Qmp } from './qmp.ts'
import { files, type Frozen, type Vm } from './vm.ts'

/**
 * Moves a snapshot out of the disks of a VM that is off, so that other VMs can start from it as often as needed: its
 * images, its memory as a file, and the state of its devices. Afterwards the VM itself can no longer be started.
 * @param argv QEMU's arguments as when the snapshot was taken
 * @param limit seconds
 * @throws Failure when QEMU does not start, CannotLoad when it cannot load or write it
 */
export async function freeze(vm: Vm, tag: string, argv: string[], limit: number): Promise<Frozen> {
  const { dir, disk, vars } = files(vm.host)
  await startQemu(vm, argv, ['-S', ...memoryArgs(vm, dir, 'on')])
  try {
    await withMonitor(vm, async (monitor) => {
      await loadPaused(monitor, tag, limit)
      await migrate(monitor, 'migrate', `exec:cat >${quote(stateIn(dir))}`, limit)
    })
  } finally {
    await stopVm(vm, 0)
  }
  for (const image of [disk, vars]) await run('qemu-img', ['snapshot', '-d', tag, image])
  return { tag, dir }
}

/**
 * Resets a VM, whatever it was doing, to the snapshot that it is a copy of, in a new QEMU. Its disks become overlays
 * of a few hundred KB, and its memory is a private mapping of the file that all copies share, so it costs only the
 * changed pages. After a reboot it has ordinary memory.
 * @param limit seconds
 * @throws Failure when QEMU does not start, CannotLoad when it cannot load the state
 */
export async function thaw(vm: Vm, { dir }: Frozen, argv: string[], limit: number): Promise<void> {
  const { disk, vars } = files(vm.host)
  await stopVm(vm, 0)
  for (const image of [disk, vars]) {
    const below = join(dir, basename(image))
    // a QEMU that was killed may hold the old one for a moment
    rmSync(image, { force: true })
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2', image])
  }
  await startQemu(vm, argv, ['-S', ...memoryArgs(vm, dir, 'off'), '-incoming', 'defer'])
  try {
    await withMonitor(vm, async (monitor) => {
      await migrate(monitor, 'migrate-incoming', `exec:cat ${quote(stateIn(dir))}`, limit)
      await monitor.execute('cont')
    })
  } catch (thrown) {
    // a half-loaded state is useless
    await stopVm(vm, 0)
    throw thrown
  }
  ensureKeeper(vm)
}

const stateIn = (dir: string): string => join(dir, 'devices')

/**
 * Backs a guest's memory with a file, under the name that q35 gives to its default memory (see `query-machines`), so
 * that a snapshot of either kind can be loaded into the other.
 */
const memoryArgs = ({ memory }: Vm, dir: string, share: 'on' | 'off'): string[] => {
  const size = Math.round(memory / 1024 ** 2)
  const file = `mem-path=${optionValue(join(dir, 'memory'))},size=${size}M,share=${share}`
  return [
    ...['-machine', 'memory-backend=pc.ram', '-object'],
    `memory-backend-file,id=pc.ram,${file},x-use-canonical-path-for-ramblock-id=off`,
  ]
}

/**
 * Saves or loads the state of a VM except its memory, which is already in its file. Kata Containers starts VMs from a
 * template in the same way ("VM templating").
 */
async function migrate(
  monitor: Qmp,
  command: 'migrate' | 'migrate-incoming',
  uri: string,
  limit: number,
): Promise<void> {
  const leaveOutMemory = async (state: boolean): Promise<void> => {
    const capabilities = ['x-ignore-shared', 'events'].map((capability) => ({ capability, state }))
    await monitor.execute('migrate-set-capabilities', { capabilities })
  }
  await leaveOutMemory(true)
  await monitor.execute(command, { uri })
  await waitFor(
    `QEMU's \`${command}\``,
    limit,
    async () => {
      const { status, 'error-desc': why } = await monitor.execute<Migration>('query-migrate')
      if (status === 'failed') throw new CannotLoad(`QEMU could not finish \`${command}\`: ${why}`)
      return status === 'completed' || undefined
    },
    {
      every: 1,
      final: (failure) => failure instanceof CannotLoad,
      wake: (poke) => monitor.on(({ event }) => event === 'MIGRATION' && poke()),
    },
  )
  // no other QEMU could load a snapshot that is saved with it
  await leaveOutMemory(false)
}

interface Migration {
  status?: string
  'error-desc'?: string
}
