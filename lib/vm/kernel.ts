import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { Failure } from '../failure.ts'
import type { Blame } from '../retry.ts'
import { files } from './vm.ts'

/** The guest's kernel has failed, by its own words on the serial console. */
export class KernelFailed extends Failure {
  /** A panic may be what a case asked for; an oops never is. */
  readonly how: 'oopsed' | 'panicked'

  constructor(message: string, how: KernelFailed['how'], evidence: string) {
    super(message, { evidence })
    this.how = how
  }
}

/**
 * For waits on a guest: what its kernel has said since the boot that it is in when the wait begins. A
 * guest whose kernel is dead answers nothing any more, and nothing else would say why.
 */
export function kernelOf(host: string): Blame {
  const { serial } = files(host)
  const before = lastPart(serial, 0)
  const booted = Math.max(0, before.text.lastIndexOf(bootBegins))
  const from = before.from + booted
  const length = before.text.length - booted
  return (during) => {
    const { text } = lastPart(serial, from)
    // what was there before a boot that has begun since is over
    const over = text.indexOf(bootBegins, length) >= 0
    const found = kernelFailure(over ? text.slice(length) : text)
    if (!found) return undefined
    const { how, what, lines } = found
    const said = `${during}: the kernel of \`${host}\` ${how}: ${what}`
    return new KernelFailed(said, how, `${serial}\n${lines.join('\n')}`)
  }
}

/** Where the firmware hands over. */
const bootBegins = 'BdsDxe: starting'

/** An oops has its number in brackets on x86; what follows on it, such as a panic, says less. */
const oops = /(?:kernel BUG at|BUG: unable to handle|BUG: kernel NULL|: [0-9a-f]{4} \[#\d+\]).*/
const panic = /Kernel panic - not syncing: (.*)/

/** What a kernel said of its own failure; undefined where it said nothing of the kind. */
export function kernelFailure(
  log: string,
): { how: KernelFailed['how']; what: string; lines: string[] } | undefined {
  // oxlint-disable-next-line no-control-regex -- a console's colours and cursor moves
  const lines = log.replaceAll(/\u001b\[[0-9;?]*[A-Za-z]|\r/g, '').split('\n')
  const first = lines.findIndex((line) => oops.test(line))
  const at = first < 0 ? lines.findIndex((line) => panic.test(line)) : first
  if (at < 0) return undefined
  const near = lines.slice(at, at + 40)
  const line = lines[at]!.replace(/^.*?\[ *\d+\.\d+\] /, '').trim()
  if (first < 0) return { how: 'panicked', what: panic.exec(line)?.[1] ?? line, lines: near }
  const place = near.map((each) => /RIP: \w+:([\w.]+)/.exec(each)?.[1]).find(Boolean)
  return { how: 'oopsed', what: place ? `${line}, in ${place}` : line, lines: near }
}

/** A log from a byte on, of which the last MiB at most; from its start when it was begun anew. */
function lastPart(path: string, from: number): { text: string; from: number } {
  if (!existsSync(path)) return { text: '', from: 0 }
  const fd = openSync(path, 'r')
  try {
    const { size } = fstatSync(fd)
    const start = Math.max(size < from ? 0 : from, size - 1024 ** 2)
    const part = Buffer.alloc(size - start)
    readSync(fd, part, 0, part.length, start)
    // one character a byte, so that a place in the text is one in the file
    return { text: part.toString('latin1'), from: start }
  } finally {
    closeSync(fd)
  }
}
