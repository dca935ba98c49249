/**
 * The small process that outlives the tasks: one per VM, started by `ensureKeeper` as
 * `keeper.ts <host> <uuid>`. A guest's reboot ends QEMU (`-no-reboot`); this starts it again on the
 * same disk and variables. Any other end of QEMU ends the keeper. Every QMP event is kept. It also
 * pulls the cables that faults say, and puts them back when their lease is over.
 */
import { appendFileSync } from 'node:fs'
import { keepCables } from '../fault/cable.ts'
import { Failure, orUnwritable } from '../failure.ts'
import { gone } from '../process.ts'
import { startQemu } from './qemu.ts'
import { qmp, type QmpEvent } from './qmp.ts'
import { files, qemuOf, readVm, runningOf } from './vm.ts'

const [host = '', uuid] = process.argv.slice(2)
const f = files(host)

for (;;) {
  const vm = readVm(host)
  const qemu = vm && qemuOf(vm)
  if (!vm || vm.uuid !== uuid || !qemu) break
  const reason = await watch()
  await gone(qemu, 30)
  note({ event: 'KEEPER', data: { reason } })
  const { argv } = runningOf(host) ?? {}
  if (reason !== 'guest-reset' || !argv) break
  await startQemu(vm, argv)
}

/** Follows QEMU until it ends; the reason that it gave for its last shutdown. */
async function watch(): Promise<string> {
  let reason = 'unknown'
  const told = (event: QmpEvent): void => {
    note(event)
    if (event.event === 'SHUTDOWN') reason = String(event.data?.['reason'])
  }
  const monitor = await qmp(f.keeperQmp, { timeout: 10, told })
  keepCables(host, monitor, note)
  await monitor.closed
  return reason
}

function note(event: object): void {
  try {
    appendFileSync(f.events, `${JSON.stringify({ at: new Date().toISOString(), ...event })}\n`, {
      mode: 0o600,
    })
  } catch (thrown) {
    // a VM is kept on a disk that is full, too
    if (!(orUnwritable(thrown) instanceof Failure)) throw thrown
  }
}
