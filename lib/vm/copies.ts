import { cpSync, existsSync, readdirSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { attempt, onFailure } from '../failure.ts'
import { checkDisk } from '../image/qcow2.ts'
import { lock, locked, type Lock } from '../lock.ts'
import { run } from '../run.ts'
import { inLab, labHome, runtimeDir } from '../settings.ts'
import { labKey } from './identity.ts'
import { withMonitor } from './monitor.ts'
import { snapshotsIn } from './snapshot.ts'
import { files, keepersOf, knownVms, qemuOf, readVm, type Vm } from './vm.ts'

/**
 * A lab that exists only during a run: copies of VMs, with separate disks, sockets, ports, lan and remotes, in a
 * directory laid out like any `LAB_HOME`.
 */
export interface Copy {
  /** From 1 on. */
  number: number
  home: string
}

const directory = (): string => join(labHome(), 'copies')

/** All copies that exist, of any run. */
export function copies(): Copy[] {
  if (!existsSync(directory())) return []
  const numbers = readdirSync(directory()).filter((name) => /^[1-9]\d*$/.test(name))
  return numbers
    .map((name) => ({ number: Number(name), home: join(directory(), name) }))
    .toSorted((a, b) => a.number - b.number)
}

/** The name of a copy's VM where VMs of several labs are shown. */
export const titleInCopy = (host: string, { number }: Pick<Copy, 'number'>): string =>
  `${host} (copy ${number})`

/** A copy whose lock this run holds. */
export interface HeldCopy extends Copy {
  held: Lock
}

/** Makes the directories of new copies, with the first free numbers, and locks each for this process. */
export function reserveCopies(count: number): Promise<HeldCopy[]> {
  return guarded(async () => {
    const taken = new Set(copies().map(({ number }) => number))
    const reserved: HeldCopy[] = []
    for (let number = 1; reserved.length < count; number++) {
      if (taken.has(number)) continue
      const home = privateDirectory(join(directory(), String(number)))
      const held = await lock(lockOf(home), `use copy ${number}`)
      reserved.push({ number, home, held })
    }
    return reserved
  })
}

/**
 * Ends and deletes the copies that no run holds any more, as after a kill -9.
 * @returns those that were deleted
 */
export async function removeAbandoned(): Promise<Copy[]> {
  if (copies().length === 0) return []
  return guarded(async () => {
    const found = await inNobodysHands()
    for (const { home } of found) removeCopy(home)
    return found.filter(({ home }) => !existsSync(home))
  })
}

/** The copies that no run holds any more. */
export const abandonedCopies = async (): Promise<Copy[]> =>
  copies().length === 0 ? [] : guarded(inNobodysHands)

/** The message that abandoned copies were removed. */
export const removedInWords = (found: Copy[]): string =>
  `Ended and deleted what a run that was killed has left: ${found.map(({ number }) => `copy ${number}`).join(', ')}`

async function inNobodysHands(): Promise<Copy[]> {
  const found: Copy[] = []
  for (const copy of copies()) {
    const taking = lock(lockOf(copy.home), `use copy ${copy.number}`)
    const held = await taking.catch(onFailure(() => undefined))
    if (held) found.push(copy)
    held?.release()
  }
  return found
}

/** The lab with the VMs that copies are made from; it is inside the first copy of a run. */
export const moldOf = (home: string): string => join(home, 'mold')

const lockOf = (home: string): string => join(home, 'lock')

/** Makes or removes copies under a lock, so that a copy that is just being made does not look abandoned. */
async function guarded<T>(work: () => Promise<T>): Promise<T> {
  privateDirectory(labHome())
  privateDirectory(directory())
  const take = () => lock(join(directory(), 'lock'), 'make or remove copies', { wait: 60 })
  return locked([take], work)
}

/**
 * Ends a copy's processes and deletes its files. Synchronous, so that it works while a signal ends the task.
 */
export function removeCopy(home: string): void {
  if (existsSync(moldOf(home))) removeCopy(moldOf(home))
  const ended = inLab(home, () => {
    const vms = knownVms().flatMap((host) => vmIn(host) ?? [])
    // a shell with another TMPDIR used another directory, which only the arguments of its running QEMU tell
    const places = new Set([runtimeDir(), ...vms.map(({ host }) => dirname(files(host).run))])
    const alive = () => vms.flatMap((vm) => [...keepersOf(vm), qemuOf(vm) ?? []].flat())
    let found = alive()
    // a keeper may just have started a QEMU
    for (let tries = 0; found.length > 0 && tries < 250; tries++) {
      for (const { pid } of found) kill(pid)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
      found = alive()
    }
    if (found.length > 0) return false
    for (const place of places) rmSync(place, { recursive: true, force: true })
    return true
  })
  // the record is kept for processes that did not end, so that they are found again
  if (ended) rmSync(home, { recursive: true, force: true, maxRetries: 3 })
}

/** A record that cannot be read must not keep a copy from being deleted. */
const vmIn = (host: string): Vm | undefined =>
  attempt(
    () => readVm(host),
    () => undefined,
  )

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // it has ended by itself
  }
}

/**
 * Copies a running VM: its disks, in which the copy keeps one snapshot, and its identity. Pauses the VM meanwhile,
 * because QEMU flushes what it has cached of its images when it stops a guest.
 * @param tag the snapshot that the copy keeps
 */
export async function copyVm(vm: Vm, tag: string, home: string): Promise<void> {
  const { disk, vars } = files(vm.host)
  const to = await copyWho(vm, home)
  await withMonitor(vm, async (monitor) => {
    await monitor.execute('stop')
    try {
      await run('cp', ['--reflink=auto', '--sparse=always', disk, vars, to], { timeout: 600 })
    } finally {
      await monitor.execute('cont')
    }
  })
  for (const image of [disk, vars].map((path) => join(to, basename(path)))) {
    for (const other of (await snapshotsIn(image)).filter((name) => name !== tag)) {
      await run('qemu-img', ['snapshot', '-d', other, image])
    }
    await checkDisk(image)
  }
}

/** Copies a VM's identity and the lab's key for its logins. @returns the VM's directory in the copy */
export async function copyWho({ host }: Vm, home: string): Promise<string> {
  const { hostKey, credential } = files(host)
  const keys = dirname(labKey())
  const to = inLab(home, () => {
    privateDirectory(home)
    privateDirectory(dirname(files(host).dir))
    cpSync(keys, privateDirectory(dirname(labKey())), { recursive: true })
    return privateDirectory(files(host).dir)
  })
  await run('cp', ['--preserve=mode', hostKey, `${hostKey}.pub`, credential, to])
  return to
}
