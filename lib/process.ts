import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** What tells a process from another that has its pid later. */
export interface Identity {
  pid: number
  /** Start time in clock ticks since boot: field 22 of /proc/<pid>/stat. */
  start: number
  /** The host's boot, as pids and start times begin anew with it. */
  bootId: string
  /** The VM's UUID, which the command line carries. */
  uuid: string
}

export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

/** Whether a process's first thread has ended, and its start time. @throws when there is none of that pid */
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

/** True while the very process that was recorded runs: pid, start time, boot and UUID agree. */
export function alive(recorded: Identity | undefined): recorded is Identity {
  if (!recorded) return false
  const now = identify(recorded.pid, recorded.uuid)
  return now?.start === recorded.start && now.bootId === recorded.bootId
}

/**
 * Every process of this user whose command line carries the VM's UUID. The record of a task that
 * was killed before it could write one is thereby not needed.
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
 * Ends a process: SIGTERM, then SIGKILL after `limit` seconds. Signals nothing but the process that
 * was recorded.
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
 * Kills every process whose working directory is this one or below it: what a command that was killed itself has
 * left behind. Who has moved to another root ends with who started it.
 * @returns how many there were
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

/** Resolves with true once the process holds nothing any more, or with false after `limit` seconds. */
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
