import { cableIn, links, type Link } from './fault.ts'
import { readableFaults } from './record.ts'
import type { Qmp, QmpEvent } from '../vm/qmp.ts'

/** QEMU's id of a NIC. While its link is down no packet passes and the guest sees no carrier. */
const nic = (link: Link): string => `${link}-nic`

export const setCable = (
  monitor: Pick<Qmp, 'execute'>,
  link: Link,
  up: boolean,
): Promise<unknown> => monitor.execute('set_link', { name: nic(link), up })

/**
 * Plugs and unplugs a VM's cables as its recorded faults say, until the monitor connection closes:
 * the keeper's part of a lease. Reads the record four times a second. A pulled cable is pulled again
 * each second, because loading a snapshot restores the link state that was saved with it.
 */
export function keepCables(
  host: string,
  monitor: Pick<Qmp, 'execute' | 'on' | 'closed'>,
  note: (event: QmpEvent) => void,
): void {
  const last = new Map<Link, { up: boolean; at: number }>()
  const look = async (): Promise<void> => {
    const now = Date.now()
    const faults = readableFaults(host)
    for (const link of links) {
      const up = cableIn(faults, link, now)
      const before = last.get(link)
      if (before?.up === up && (up || now - before.at < 1000)) continue
      last.set(link, { up, at: now })
      await setCable(monitor, link, up)
      if ((before?.up ?? true) !== up) note({ event: 'KEEPER_CABLE', data: { link, up } })
    }
  }
  let busy = false
  const timer = setInterval(() => {
    if (busy) return
    busy = true
    // QEMU may end at any moment; forget the last state, so that the next look sets it again
    void look()
      .catch(() => last.clear())
      .finally(() => (busy = false))
  }, 250)
  monitor.on(({ event }) => event === 'RESUME' && last.clear())
  void monitor.closed.finally(() => clearInterval(timer))
}
