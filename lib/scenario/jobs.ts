import { availableParallelism } from 'node:os'
import { Failure, usage } from '../failure.ts'
import { availableMemory, gib } from '../vm/preflight.ts'

/** Number of labs that work side by side: the run's own VMs are the first, the others are copies of them. */
export type Jobs = number | 'auto'

/** @param text such as `4`, or `auto` @throws Failure (usage) */
export function readJobs(text: string | undefined): Jobs | undefined {
  if (text === undefined || text === 'auto') return text
  if (/^[1-9]\d?$/.test(text)) return Number(text)
  throw usage(
    `Cannot read \`${text}\` as a number of jobs`,
    'Write --jobs 4, or --jobs auto for as many as this machine has room for',
  )
}

/** What a job needs, and what the machine has. */
export interface Room {
  /** VMs of a job. */
  vms: number
  /** Bytes of memory of all VMs of a job. */
  memory: number
  /** The most jobs for which there is work. */
  most: number
  accelerator: 'kvm' | 'tcg'
  cores: number
  /** Bytes of memory available for copies. */
  available: number
}

/** Cores that the two CPUs of a VM keep busy: a case mostly waits, but an emulated CPU never waits for long. */
const coresOfVm = { kvm: 1, tcg: 2 }

/** Bytes that QEMU needs besides the guest's memory: under TCG mainly for translated code. */
const overhead = { kvm: 128 * 1024 ** 2, tcg: 512 * 1024 ** 2 }

/**
 * The number of jobs to run; `auto` means as many as the machine has cores and memory for.
 * @throws Failure when there is not enough memory for the requested number
 */
export function jobsFor(asked: Jobs, room: Room): number {
  const { vms, most, accelerator, cores, available } = room
  const perCopy = room.memory + vms * overhead[accelerator]
  const copies = Math.max(0, Math.floor(available / perCopy))
  if (asked === 'auto') {
    const byCores = Math.floor(cores / (vms * coresOfVm[accelerator]))
    return Math.max(1, Math.min(byCores, copies + 1, most))
  }
  const jobs = Math.max(1, Math.min(asked, most))
  if (jobs - 1 > copies) {
    throw new Failure(
      `Cannot run ${jobs} jobs: the copies want ${gib((jobs - 1) * perCopy)} of memory, ${gib(Math.max(0, available))} are available`,
      { hint: '--jobs auto takes as many as there is room for' },
    )
  }
  return jobs
}

/** How much slower a VM is when there are more VMs than cores. Limits are measured with one VM per core. */
export const load = (vms: number, cores = availableParallelism()): number =>
  Math.max(1, vms / cores)

/**
 * The cores and memory of this machine.
 * @param reserved bytes that the run's own VMs have yet to allocate
 */
export const roomHere = (reserved: number): Pick<Room, 'cores' | 'available'> => ({
  cores: availableParallelism(),
  available: availableMemory() - reserved,
})
