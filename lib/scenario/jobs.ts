import { availableParallelism } from 'node:os'
import { Failure, usage } from '../failure.ts'
import { availableMemory, gib } from '../vm/preflight.ts'

/** Labs that work side by side: the run's own VMs are the first, the others are copies of them. */
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

/** What a job takes, and of what there is to take. */
export interface Room {
  /** VMs of a job. */
  vms: number
  /** Bytes of memory that a job's VMs have together. */
  memory: number
  /** Jobs for which there is something to do. */
  most: number
  accelerator: 'kvm' | 'tcg'
  cores: number
  /** Bytes that copies may have. */
  available: number
}

/** Cores that the two CPUs of a VM keep busy: much of a case is waiting, and an emulated CPU never waits for long. */
const coresOfVm = { kvm: 1, tcg: 2 }

/** Bytes that QEMU itself takes beside a guest's memory: under TCG what it has translated, above all. */
const overhead = { kvm: 128 * 1024 ** 2, tcg: 512 * 1024 ** 2 }

/**
 * How many jobs there are to be; `auto` are as many as the machine has cores and memory for.
 * @throws Failure when a number was asked for that there is no memory for
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

/** How much slower a VM is when there are more of them than cores. Limits are measured with one VM a core. */
export const load = (vms: number, cores = availableParallelism()): number =>
  Math.max(1, vms / cores)

/**
 * What this machine has.
 * @param reserved bytes that the run's own VMs are yet to take
 */
export const roomHere = (reserved: number): Pick<Room, 'cores' | 'available'> => ({
  cores: availableParallelism(),
  available: availableMemory() - reserved,
})
