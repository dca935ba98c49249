import type { Machine } from './machine.ts'

/** Sets the time zone of a host so many hours east of Greenwich; its modules must leave the zone alone. */
export async function livesEast(vm: Machine, hours: number): Promise<void> {
  const input = zone(hours).toString('base64')
  await vm.root('rm -f /etc/localtime && base64 -d >/etc/localtime', { input })
}

/** For a module that has `lib`: keeps the zone that was set by hand. */
export const ownZone = 'time.timeZone = lib.mkForce null;'

/** A time zone as a file (RFC 8536): so many hours east of Greenwich, all year round. */
function zone(hours: number): Buffer {
  const counts = Buffer.alloc(39)
  counts.writeInt32BE(1, 31)
  counts.writeInt32BE(4, 35)
  const type = Buffer.alloc(6)
  type.writeInt32BE(hours * 3600)
  const block = Buffer.concat([Buffer.from('TZif2'), counts, type, Buffer.from('LAB\0')])
  return Buffer.concat([block, block, Buffer.from(`\nLAB-${hours}\n`)])
}
