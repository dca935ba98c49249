import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { CannotLoad, deleteSnapshot, restoreSnapshot, saveSnapshot } from '../vm/snapshot.ts'
import { files, qemuOf, readJson, writeJson, writeVm, type Vm } from '../vm/vm.ts'
import type { Baseline, Prepared } from './baseline.ts'

const beforeTag = 'before-scenarios'
const beforeOf = (host: string): string => join(files(host).dir, 'before-scenarios.json')

/**
 * Keeps a VM that runs as it is now, for `leaveAsBefore`. One that a run left at its baseline, cut short or
 * asked to, has what an earlier run kept.
 * @param limit seconds
 */
export async function rememberBefore(
  vm: Vm,
  known: Baseline | undefined,
  limit: number,
): Promise<void> {
  if (!qemuOf(vm) || vm.toplevel === known?.toplevel) return
  await saveSnapshot(vm, beforeTag, limit)
  writeJson(beforeOf(vm.host), { toplevel: vm.toplevel })
}

/**
 * Leaves a VM as it was before the scenarios, or at its baseline where it did not run then.
 * @throws Failure when QEMU loads neither
 */
export async function leaveAsBefore(prepared: Prepared, patience: number): Promise<void> {
  const { vm, argv, tag } = prepared
  const record = beforeOf(vm.host)
  const before = readJson<Pick<Vm, 'toplevel'>>(record)
  try {
    if (before) {
      await restoreSnapshot(vm, beforeTag, argv, 30 * patience)
      writeVm({ ...vm, ...before })
      await deleteSnapshot(vm, beforeTag, 30 * patience)
      rmSync(record)
      return
    }
  } catch (thrown) {
    if (!(thrown instanceof CannotLoad)) throw thrown
    rmSync(record)
  }
  await restoreSnapshot(vm, tag, argv, 30 * patience)
}
