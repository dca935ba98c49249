import { closeSync, fstatSync, openSync, readSync, watch, type FSWatcher } from 'node:fs'
import { basename, dirname } from 'node:path'
import { StringDecoder } from 'node:string_decoder'

/**
 * Calls back with each complete line of a file that another process writes, until stopped. The
 * file may not exist yet. One that is truncated or replaced is read again from its beginning.
 * @param options.from byte to start at, or `end` for what is written from now on. Default 0.
 * @returns a function that stops following; no line comes after it
 */
export function follow(
  path: string,
  onLine: (line: string) => void,
  options: { from?: number | 'end' } = {},
): () => void {
  let offset = options.from === 'end' ? Infinity : (options.from ?? 0)
  let inode: number | undefined
  let decoder = new StringDecoder('utf8')
  let rest = ''
  let stopped = false
  const chunk = Buffer.alloc(65536)

  const read = (): void => {
    let fd: number
    try {
      fd = openSync(path, 'r')
    } catch {
      if (offset === Infinity) offset = 0
      return
    }
    try {
      const { size, ino } = fstatSync(fd)
      if (offset === Infinity) offset = size
      if (size < offset || (inode !== undefined && ino !== inode)) {
        offset = 0
        decoder = new StringDecoder('utf8')
        rest = ''
      }
      inode = ino
      for (let got = 1; got > 0;) {
        got = readSync(fd, chunk, 0, chunk.length, offset)
        offset += got
        const lines = (rest + decoder.write(chunk.subarray(0, got))).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines) {
          if (stopped) return
          onLine(line.replace(/\r+$/, ''))
        }
      }
    } finally {
      closeSync(fd)
    }
  }

  // a serial console is written byte by byte: gather the events of 20 ms into one read
  let soon: NodeJS.Timeout | undefined
  const changed = (): void => {
    soon ??= setTimeout(() => {
      soon = undefined
      read()
    }, 20)
  }
  let watcher: FSWatcher | undefined
  try {
    // watches the directory, as the file may come later; without free inotify watches, polling alone must do
    watcher = watch(dirname(path), (_, file) => {
      if (file === null || file === basename(path)) changed()
    }).on('error', () => watcher?.close())
  } catch {}
  const poll = setInterval(read, 250)
  if (offset === Infinity) read()
  else changed()
  return () => {
    stopped = true
    clearInterval(poll)
    clearTimeout(soon)
    watcher?.close()
  }
}
