import { existsSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { Failure } from '../lib/failure.ts'
import { hostName } from '../lib/host-name.ts'
import { TookTooLong, waitFor } from '../lib/retry.ts'
import { lastLines } from '../lib/run.ts'
import { main, type Args } from '../lib/task.ts'
import { queriesRemoved, withoutQueries } from '../lib/vm/queries.ts'
import { openSocket } from '../lib/vm/socket.ts'
import { files, qemuOf, theVm, type Vm } from '../lib/vm/vm.ts'

export const name = 'console'
export const describe = "Follow a VM's serial console, and type into it"
export const usage = '<host>'
export const positionals = { host: { describe: 'VM, by name' } }
export const options = {
  lines: {
    type: 'number',
    most: 1_000_000,
    default: 20,
    describe: 'Lines of the log to show first',
  },
  log: { type: 'boolean', describe: 'Show the log and exit' },
} as const
export const under = [
  'connects to the socket <runtime>/<host>/console',
  '<LAB_HOME>/vms/<host>/serial.log',
]
export const examples: [string, string][] = [
  ['just console-test-vm sorrow', 'Attach; Ctrl-] ends'],
  ['tsx tasks/console.ts sorrow --log --lines 200', 'Read the log of a dead VM'],
]

const detach = 0x1d // Ctrl-], as in telnet

export async function run(args: Args): Promise<void> {
  const vm = theVm(hostName(args['host']))
  const f = files(vm.host)
  // a VM that was never started has none
  const log = existsSync(f.serial) ? readFileSync(f.serial, 'utf8') : ''
  if (args['lines'] > 0) console.log(withoutQueries(lastLines(log, args['lines'])))
  if (args['log']) return
  if (!qemuOf(vm)) {
    throw new Failure(`Cannot attach to \`${vm.host}\`: it is not running`, {
      hint: `just deploy-test-vm ${vm.host}; --log shows what it said last`,
    })
  }
  const { stdin, stdout } = process
  const over = new AbortController()
  let socket: Socket | undefined = await openSocket(f.console, 'console')
  tellSize(stdout)
  if (stdin.isTTY) stdin.setRawMode(true)
  // not a pipe: the end of standard input must not close the console
  stdin.on('data', (keys: Buffer) => {
    if (!keys.includes(detach)) return socket?.write(keys)
    over.abort()
    socket?.destroy()
  })
  try {
    for (; socket; socket = await reopened(vm, over.signal)) {
      process.stderr.write(`Attached to ${vm.host}; Ctrl-] ends\n`)
      const lines = socket.pipe(queriesRemoved())
      lines.pipe(stdout, { end: false })
      // a broken connection counts as ended, as when QEMU exits before it has read all keys
      if (!socket.destroyed) await new Promise((resolve) => socket!.once('close', resolve))
    }
  } finally {
    if (stdin.isTTY) stdin.setRawMode(false)
    stdin.destroy()
  }
}

/** A serial line has no size, and the guest's queries for it are filtered out. */
function tellSize({ isTTY, rows, columns }: typeof process.stdout): void {
  if (!isTTY || (rows === 24 && columns === 80)) return
  const size = `stty rows ${rows} cols ${columns}`
  process.stderr.write(`In the guest, \`${size}\` sets the size of this terminal\n`)
}

/** The console of the next QEMU: a reboot starts a new one, and so does restoring a snapshot. */
async function reopened(vm: Vm, over: AbortSignal): Promise<Socket | undefined> {
  if (over.aborted) return undefined
  process.stderr.write(`QEMU of ${vm.host} has ended; waiting for the next one\n`)
  const open = (): Promise<Socket> => openSocket(files(vm.host).console, 'console')
  const asked = { every: 0.2, signal: over }
  const found = await waitFor('the next QEMU', 15, open, asked).catch((thrown: unknown) => {
    if (!over.aborted && !(thrown instanceof TookTooLong)) throw thrown
  })
  if (!found && !over.aborted)
    process.stderr.write(`${vm.host} is off: just deploy-test-vm ${vm.host} starts it\n`)
  return found ?? undefined
}

await main(import.meta, {
  ...{ name, describe, usage, positionals, options, under, examples, run },
  ownSignals: true,
})
