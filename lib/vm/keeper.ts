/**
 * The small process that outlives the tasks: one per VM, started by `ensureKeeper` as
 * `keeper.ts <host> <uuid>`. A guest's reboot ends QEMU (`-no-reboot`); the keeper starts it again on
 * the same disk and variables. Any other end of QEMU ends the keeper. It logs every QMP event. It also
 * pulls the cables of recorded faults, and plugs them back in when the lease ends.
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

/** Follows QEMU until it ends. @returns the reason that it gave for its last shutdown */
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
    // a full disk must not end the keeper
    if (!(orUnwritable(thrown) instanceof Failure)) throw thrown
  }
}
