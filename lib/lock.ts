import { spawn } from 'node:child_process'
import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { Failure, oneLine } from './failure.ts'
import { counting } from './retry.ts'

export interface Lock {
  release: () => void
}

/**
 * Takes a lock that the kernel holds for this process (flock(2) on an open file), so that no crash
 * can leave it behind. The file's text only tells a refused process who holds the lock.
 * @param options.wait seconds to wait for it; 0 fails at once
 * @param options.say called each second with the holder that it waits for
 * @throws Failure naming the holder if the lock is not free in time
 */
export async function lock(
  path: string,
  what: string,
  options: { wait?: number; say?: (line: string) => void } = {},
): Promise<Lock> {
  const fd = openLock(path)
  const seconds = options.wait ?? 0
  let taken = await flock(fd, ['--nonblock'])
  if (!taken && seconds > 0) {
    const freed = () => flock(fd, ['--timeout', String(seconds)])
    // read again each time: a new holder writes its name a moment after it gets the lock
    const called = () => `waiting for ${holder(path)}`
    taken = await counting(called, seconds, options.say ?? (() => {}), freed)
  }
  if (!taken) {
    closeSync(fd)
    throw new Failure(`Cannot ${what}: ${holder(path)} holds the lock`, {
      hint: 'Wait for it to end, or end it: that releases the lock',
    })
  }
  ftruncateSync(fd)
  const command = process.argv
    .slice(1)
    .map((arg) => arg.split('/').at(-1))
    .join(' ')
  writeSync(fd, `\`${oneLine(command)}\` (pid ${process.pid})`, 0)
  return {
    release: () => {
      ftruncateSync(fd)
      closeSync(fd)
    },
  }
}

/** Runs work that needs locks: takes them in this order and releases them at the end. */
export async function locked<T>(
  takes: (() => Promise<Lock>)[],
  work: () => T | Promise<T>,
): Promise<T> {
  const held: Lock[] = []
  try {
    for (const take of takes) held.push(await take())
    return await work()
  } finally {
    for (const { release } of held) release()
  }
}

function openLock(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why = code === 'ELOOP' ? 'it is a symlink' : (cause as Error).message
    throw new Failure(`Cannot lock \`${path}\`: ${why}`, { hint: 'Remove it', cause })
  }
}

const holder = (path: string): string => readFileSync(path, 'utf8') || 'another task'

/**
 * flock(1) locks the open file that it inherits from us, so the lock outlives that process.
 * @returns whether the lock was obtained in the time that the flags allow
 */
export async function flock(fd: number, flags: string[]): Promise<boolean> {
  const child = spawn('flock', ['--conflict-exit-code', '75', ...flags, '3'], {
    stdio: ['ignore', 'ignore', 'inherit', fd],
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject).on('exit', resolve)
  }).catch((cause: unknown) => {
    throw new Failure('Cannot lock: flock is not installed', { hint: 'just doctor', cause })
  })
  if (code === 0 || code === 75) return code === 0
  throw new Failure(`Cannot lock: flock exited with ${code}`)
}
