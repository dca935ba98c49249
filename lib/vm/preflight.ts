import { existsSync, readFileSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { Failure, Unwritable } from '../failure.ts'
import { onDebian, packages, present, withNix, type Package } from '../packages.ts'
import type { GuestKind } from '../settings.ts'

/** Tools that only the build of the embedded guest's image needs. */
const forDebian = new Set(
  'mmdebstrap newuidmap cpio depmod xz busybox'
    .split(' ')
    .concat('/etc/ssl/certs/ca-certificates.crt'),
)

/** The packages that VMs of this kind of guest need and this machine lacks. */
export const lacking = (guest: GuestKind): Package[] =>
  packages().filter(
    (one) => !one.forTests && !(guest === 'nixos' && forDebian.has(one.brings)) && !present(one),
  )

/** Leaves the firmware to `findFirmware`. @throws Failure naming every command that is missing */
export function requireTools(guest: GuestKind = 'debian'): void {
  const missing = lacking(guest).filter(({ brings }) => brings !== '@firmware')
  if (missing.length === 0) return
  const names = missing.map(({ name, brings }) => `\`${brings}\` (${name})`)
  const hint = onDebian() ? 'just doctor --install' : withNix
  throw new Failure(`Cannot find ${names.join(', ')}`, { hint })
}

/** Bytes of memory that new programs can use. */
export function availableMemory(): number {
  const found = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))
  return Number(found?.[1] ?? 0) * 1024
}

/** @throws Failure when fewer than `wanted` bytes of memory are available for the VMs to start */
export function requireMemory(wanted: number): void {
  const available = availableMemory()
  if (available >= wanted) return
  throw new Failure(
    `Cannot start the VMs: they want ${gib(wanted)} of memory, ${gib(available)} are available`,
    { hint: 'Pass --memory 1G, or stop others: just down' },
  )
}

/**
 * @param what the task for which space is needed, as in messages: `make the disks of the VMs`
 * @throws Unwritable when the file system of `path` has less than `wanted` bytes free
 */
export function requireSpace(path: string, wanted: number, what: string): void {
  const free = freeBelow(path)
  if (free >= wanted) return
  throw new Unwritable(
    `Cannot ${what}: it wants ${gib(wanted)} and \`${path}\` has ${gib(free)} left`,
    { hint: 'Free some, or set LAB_HOME and LAB_CACHE to another file system' },
  )
}

/** Bytes free for this user in the file system of `path`, or of its nearest existing parent. */
export function freeBelow(path: string): number {
  const { bavail, bsize } = statfsSync(existingParent(path))
  return bavail * bsize
}

/** The nearest directory at or above `path` that exists. */
export const existingParent = (path: string): string =>
  existsSync(path) ? path : existingParent(dirname(path))

export const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`
