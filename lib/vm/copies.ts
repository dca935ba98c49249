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
 * A lab that a run has for as long as it lasts: copies of its VMs, with disks, sockets, ports, a lan and remotes
 * of their own, and a directory that is laid out like every `LAB_HOME`.
 */
export interface Copy {
  /** From 1 on. */
  number: number
  home: string
}

const directory = (): string => join(labHome(), 'copies')

/** The copies that there are, whoever's they are. */
export function copies(): Copy[] {
  if (!existsSync(directory())) return []
  const numbers = readdirSync(directory()).filter((name) => /^[1-9]\d*$/.test(name))
  return numbers
    .map((name) => ({ number: Number(name), home: join(directory(), name) }))
    .toSorted((a, b) => a.number - b.number)
}

/** How a copy's VM is called where those of several labs are shown. */
export const titleInCopy = (host: string, { number }: Pick<Copy, 'number'>): string =>
  `${host} (copy ${number})`

/** A copy in the hands of a run. */
export interface HeldCopy extends Copy {
  held: Lock
}

/** Takes room for copies, under the first numbers that are free, and locks each for this process. */
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
 * Ends and deletes the copies that no run has in hand any more, as after a kill -9.
 * @returns those that are gone now
 */
export async function removeAbandoned(): Promise<Copy[]> {
  if (copies().length === 0) return []
  return guarded(async () => {
    const found = await inNobodysHands()
    for (const { home } of found) removeCopy(home)
    return found.filter(({ home }) => !existsSync(home))
  })
}

/** The copies whose run is gone. */
export const abandonedCopies = async (): Promise<Copy[]> =>
  copies().length === 0 ? [] : guarded(inNobodysHands)

/** The line that says so. */
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

/** The lab of the VMs that copies are taken from, which lies in the first copy that a run has. */
export const moldOf = (home: string): string => join(home, 'mold')

const lockOf = (home: string): string => join(home, 'lock')

/** One at a time: nobody takes a copy that is just being made for one that was left behind. */
async function guarded<T>(work: () => Promise<T>): Promise<T> {
  privateDirectory(labHome())
  privateDirectory(directory())
  const take = () => lock(join(directory(), 'lock'), 'make or remove copies', { wait: 60 })
  return locked([take], work)
}

/**
 * Ends a copy's processes and deletes all that it has. Waits for nothing but that, so that it can be done when a
 * signal ends the task.
 */
export function removeCopy(home: string): void {
  if (existsSync(moldOf(home))) removeCopy(moldOf(home))
  const ended = inLab(home, () => {
    const vms = knownVms().flatMap((host) => vmIn(host) ?? [])
    // that of a shell with another TMPDIR is another one, and known as long as its QEMU runs
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
  // by its record what does not end is found again
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
 * Copies a VM that runs, as its disks hold it under a snapshot, and what tells who it is. It stands still meanwhile:
 * QEMU writes out what it holds back of its images when it stops a guest.
 * @param tag the one snapshot that the copy keeps
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

/** Copies what tells who a VM is, and how it is logged in to. @returns its directory in the copy */
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
