import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** What distinguishes a process from a later one with the same pid. */
export interface Identity {
  pid: number
  /** Start time in clock ticks since boot: field 22 of /proc/<pid>/stat. */
  start: number
  /** The host's boot id, because pids and start times begin anew with each boot. */
  bootId: string
  /** The VM's UUID, which the command line carries. */
  uuid: string
}

export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

/** Whether a process's first thread has ended, and its start time. @throws if no process has that pid */
function statOf(pid: number): { ended: boolean; start: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // the second field is the command in parentheses and may hold blanks
  const [state, ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { ended: state === 'Z' || state === 'X', start: Number(rest[18]) }
}

/** The identity of a live process whose command line carries the VM's UUID, else undefined. */
export function identify(pid: number, uuid: string): Identity | undefined {
  try {
    if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(uuid)) return undefined
    const { ended, start } = statOf(pid)
    return ended ? undefined : { pid, start, bootId: bootId(), uuid }
  } catch {
    return undefined
  }
}

/** True while the recorded process itself runs: pid, start time, boot and UUID agree. */
export function alive(recorded: Identity | undefined): recorded is Identity {
  if (!recorded) return false
  const now = identify(recorded.pid, recorded.uuid)
  return now?.start === recorded.start && now.bootId === recorded.bootId
}

/**
 * Every process whose command line carries the VM's UUID. It needs no record, so it also finds the
 * processes of a task that was killed before it could write one.
 */
export function processesOf(uuid: string): (Identity & { program: string })[] {
  const found = []
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!pid || pid === process.pid) continue
    const identity = identify(pid, uuid)
    if (!identity) continue
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    found.push({ ...identity, program: argv[0]?.split('/').at(-1) ?? '' })
  }
  // the oldest first: a child between fork and exec has its parent's command line
  return found.toSorted((a, b) => a.start - b.start)
}

/**
 * Ends a process: SIGTERM, then SIGKILL after `limit` seconds. Signals only the recorded process,
 * never another one with its pid.
 */
export async function end(recorded: Identity, limit = 5): Promise<void> {
  for (const [signal, seconds] of [['SIGTERM', limit] as const, ['SIGKILL', 5] as const]) {
    if (!alive(recorded)) return
    try {
      process.kill(recorded.pid, signal)
    } catch {
      return
    }
    await gone(recorded, seconds)
  }
}

/**
 * Kills every process whose working directory is this one or below it: the processes that a killed command has
 * left behind. One that changed its root is not found here; it ends with the process that started it.
 * @returns how many it found
 */
export function killWithin(directory: string): number {
  const within = readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid && pid !== process.pid && worksIn(pid, directory))
  for (const pid of within) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // it has ended meanwhile
    }
  }
  return within.length
}

function worksIn(pid: number, directory: string): boolean {
  try {
    return `${readlinkSync(`/proc/${pid}/cwd`)}/`.startsWith(`${directory}/`)
  } catch {
    // it has ended, or is another user's
    return false
  }
}

/** Resolves with true once the process has ended and released its files, or with false after `limit` seconds. */
export async function gone(recorded: Identity, limit: number): Promise<boolean> {
  for (const until = performance.now() + limit * 1000; performance.now() < until;) {
    if (exited(recorded)) return true
    await sleep(20)
  }
  return exited(recorded)
}

/**
 * A killed QEMU loses its command line first and its first thread next; its disks stay locked until
 * the last thread has ended.
 */
function exited({ pid, start }: Identity): boolean {
  try {
    const now = statOf(pid)
    if (now.start !== start) return true
    return now.ended && readdirSync(`/proc/${pid}/task`).length === 1
  } catch {
    return true
  }
}
