import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { stopVm } from '../vm/qemu.ts'
import { CannotLoad } from '../vm/monitor.ts'
import { deleteSnapshot, restoreSnapshot, saveSnapshot, snapshotOff } from '../vm/snapshot.ts'
import { files, keepersOf, qemuOf, readJson, writeJson, writeVm, type Vm } from '../vm/vm.ts'
import type { Baseline, Prepared } from './prepared.ts'

/** What `leaveAsBefore` needs to know; the state itself is a snapshot in the VM's own disks. */
interface Before {
  toplevel: string
  /** False for a VM that was off: only its disks were kept. */
  runs: boolean
}

const beforeTag = 'before-scenarios'
const beforeOf = (host: string): string => join(files(host).dir, 'before-scenarios.json')

/**
 * Saves the present state of a VM for `leaveAsBefore`. A VM that is still at its baseline, because a run was cut short
 * or asked to leave it there, keeps the state that the earlier run saved.
 * @param limit seconds
 */
export async function rememberBefore(
  vm: Vm,
  known: Baseline | undefined,
  limit: number,
): Promise<void> {
  if (vm.toplevel === known?.toplevel) return
  const runs = qemuOf(vm) !== undefined
  // a VM in the middle of a reboot is neither on nor off
  if (!runs && keepersOf(vm).length > 0) return
  if (runs) await saveSnapshot(vm, beforeTag, limit)
  else await snapshotOff(vm, 'save', beforeTag)
  writeJson(beforeOf(vm.host), { toplevel: vm.toplevel, runs } satisfies Before)
}

/**
 * Restores a VM to its state before the scenarios, on or off; to its baseline if no state was saved.
 * @throws Failure when QEMU loads neither
 */
export async function leaveAsBefore(prepared: Prepared, patience: number): Promise<void> {
  const { vm, argv, tag } = prepared
  const record = beforeOf(vm.host)
  const before = readJson<Before>(record)
  try {
    if (before) {
      if (before.runs) {
        await restoreSnapshot(vm, beforeTag, argv, 30 * patience)
        await deleteSnapshot(vm, beforeTag, 30 * patience)
      } else {
        await stopVm(vm, 0)
        await snapshotOff(vm, 'load', beforeTag)
        await snapshotOff(vm, 'drop', beforeTag)
      }
      writeVm({ ...vm, toplevel: before.toplevel })
      rmSync(record)
      return
    }
  } catch (thrown) {
    if (!(thrown instanceof CannotLoad)) throw thrown
    rmSync(record)
  }
  await restoreSnapshot(vm, tag, argv, 30 * patience)
}
