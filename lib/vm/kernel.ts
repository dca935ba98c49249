import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { Failure } from '../failure.ts'
import type { Blame } from '../retry.ts'
import { files } from './vm.ts'

/** The guest's kernel has failed, by its own message on the serial console. */
export class KernelFailed extends Failure {
  /** A case may cause a panic on purpose, but never an oops. */
  readonly how: 'oopsed' | 'panicked'

  constructor(message: string, how: KernelFailed['how'], evidence: string) {
    super(message, { evidence })
    this.how = how
  }
}

/**
 * For waits on a guest: reports a kernel failure since the start of the boot during which the wait
 * began. A guest with a dead kernel no longer answers, and nothing else would say why.
 */
export function kernelOf(host: string): Blame {
  const { serial } = files(host)
  const before = lastPart(serial, 0)
  const booted = Math.max(0, before.text.lastIndexOf(bootBegins))
  const from = before.from + booted
  const length = before.text.length - booted
  return (during) => {
    const { text } = lastPart(serial, from)
    // after a reboot during the wait, failures from before the wait no longer count
    const over = text.indexOf(bootBegins, length) >= 0
    const found = kernelFailure(over ? text.slice(length) : text)
    if (!found) return undefined
    const { how, what, lines } = found
    const said = `${during}: the kernel of \`${host}\` ${how}: ${what}`
    return new KernelFailed(said, how, `${serial}\n${lines.join('\n')}`)
  }
}

/** The line with which the firmware hands over to the boot loader. */
const bootBegins = 'BdsDxe: starting'

/** On x86 an oops has its number in brackets. It is reported before a panic that follows it, which says less. */
const oops = /(?:kernel BUG at|BUG: unable to handle|BUG: kernel NULL|: [0-9a-f]{4} \[#\d+\]).*/
const panic = /Kernel panic - not syncing: (.*)/

/** Finds a kernel failure in a log; undefined when there is none. */
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

/** A log from a byte on, at most its last MiB; from its beginning when it is shorter than that, so was replaced. */
function lastPart(path: string, from: number): { text: string; from: number } {
  if (!existsSync(path)) return { text: '', from: 0 }
  const fd = openSync(path, 'r')
  try {
    const { size } = fstatSync(fd)
    const start = Math.max(size < from ? 0 : from, size - 1024 ** 2)
    const part = Buffer.alloc(size - start)
    readSync(fd, part, 0, part.length, start)
    // one character per byte, so that positions in the text are positions in the file
    return { text: part.toString('latin1'), from: start }
  } finally {
    closeSync(fd)
  }
}
