import { Failure } from '../failure.ts'
import type { Ground } from './ground.ts'
import type { Host } from '../nix/host.ts'
import { gib } from './preflight.ts'
import { hasDisk, isRunning, readVm, type Vm } from './vm.ts'

/** The state of one VM's deployment, filled in by its steps. */
export interface Deployment {
  host: string
  size: Partial<Pick<Vm, 'disk' | 'memory' | 'cpus'>>
  fresh: boolean
  /** Whether a NixOS host has a disk that its disko makes. */
  disko: boolean
  openUplink: boolean
  ground: Ground
  built?: Host
  /** The store that its derivation was written to. */
  builtIn?: string
  /** Whether anything was made, started or switched. */
  changed: boolean
  /** Whether this deploy started QEMU. */
  started: boolean
  /** Messages about requested sizes and uplinks that the VM does not get. */
  notes: string[]
}

export const deployment = (
  host: string,
  size: Deployment['size'] = {},
  fresh = false,
  ways: Partial<Pick<Deployment, 'disko' | 'openUplink'>> = {},
): Deployment => {
  const made = {
    host,
    size,
    fresh,
    // an existing disk keeps its kind
    disko: ways.disko ?? (!fresh && readVm(host)?.disko === true),
    openUplink: ways.openUplink ?? false,
    ground: {} as Ground,
    changed: false,
    started: false,
  }
  return { ...made, notes: fresh ? [] : kept(made) }
}

/** Messages about properties that a VM keeps although others are requested, with what to do about each. */
const kept = ({ host, size, openUplink }: Omit<Deployment, 'notes'>): string[] => [
  ...keptSizes(host, size),
  ...keptUplink(host, openUplink),
]

function keptSizes(host: string, size: Deployment['size']): string[] {
  const vm = readVm(host)
  const differs = (key: keyof Deployment['size']): boolean =>
    vm !== undefined && size[key] !== undefined && size[key] !== vm[key]
  const notes: string[] = []
  if (vm && differs('disk') && hasDisk(host)) {
    notes.push(
      `\`${host}\` keeps its disk of ${gib(vm.disk)}: one of ${gib(size.disk!)} is made with --fresh, which throws away what is on it`,
    )
  }
  if (!vm || !isRunning(host)) return notes
  const restart = `just down ${host}, and deploy it again`
  if (differs('memory')) {
    notes.push(
      `\`${host}\` runs with ${gib(vm.memory)} of memory: for ${gib(size.memory!)}, ${restart}`,
    )
  }
  if (differs('cpus')) {
    notes.push(`\`${host}\` runs with ${vm.cpus} CPUs: for ${size.cpus}, ${restart}`)
  }
  return notes
}

/** A running VM keeps its uplink open or closed as it is. */
function keptUplink(host: string, open: boolean): string[] {
  const is = readVm(host)?.openUplink === true
  if (!open || is || !isRunning(host)) return []
  return [
    `\`${host}\` runs with a closed uplink: to open it, just down ${host}, and deploy it again`,
  ]
}

/** @throws Failure when the existing VM was made as the other kind of guest, or with another kind of disk */
export function sameGuest({ host, fresh, ground, disko }: Deployment): void {
  if (hasDisk(host) && !fresh && disko && !readVm(host)!.disko) {
    throw new Failure(
      `Cannot give \`${host}\` a disk made by its disko: it has one made by the lab`,
      {
        hint: '--fresh makes a new disk',
      },
    )
  }
  const made = hasDisk(host) && !fresh ? readVm(host)!.guest : ground.guest.kind
  if (made === ground.guest.kind) return
  throw new Failure(
    `Cannot bring \`${host}\` up as a \`${ground.guest.kind}\` guest: it was made as \`${made}\``,
    { hint: `LAB_GUEST=${made}, or --fresh, which makes a new disk` },
  )
}
