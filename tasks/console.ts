import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { Failure } from '../lib/failure.ts'
import { hostName } from '../lib/host-name.ts'
import { lastLines } from '../lib/run.ts'
import { main, type Args } from '../lib/task.ts'
import { queriesRemoved, withoutQueries } from '../lib/vm/queries.ts'
import { files, qemuOf, theVm } from '../lib/vm/vm.ts'

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
  log: { type: 'boolean', describe: 'Show the log and end' },
} as const
export const under = [
  'connects to the socket <runtime>/<host>/console',
  '<LAB_HOME>/vms/<host>/serial.log',
]
export const examples: [string, string][] = [
  ['just console-test-vm sorrow', 'Attach; Ctrl-] ends'],
  ['tsx tasks/console.ts sorrow --log --lines 200', 'Read the log of a VM that is dead'],
]

const detach = 0x1d // Ctrl-], as telnet has it

export async function run(args: Args): Promise<void> {
  const vm = theVm(hostName(args['host']))
  const f = files(vm.host)
  console.log(withoutQueries(lastLines(readFileSync(f.serial, 'utf8'), args['lines'])))
  if (args['log']) return
  if (!qemuOf(vm)) {
    throw new Failure(`Cannot attach to \`${vm.host}\`: it is not running`, {
      hint: `just deploy-test-vm ${vm.host}; --log shows what it said last`,
    })
  }
  const socket = connect(f.console)
  await once(socket, 'connect').catch((cause: Error) => {
    throw new Failure(`Cannot attach to \`${vm.host}\`: ${cause.message}`, { cause })
  })
  const { stdin, stdout } = process
  process.stderr.write(`Attached to ${vm.host}; Ctrl-] ends\n`)
  // a serial line tells no size, and the guest is not let ask for it
  if (stdout.isTTY && (stdout.rows !== 24 || stdout.columns !== 80)) {
    const size = `stty rows ${stdout.rows} cols ${stdout.columns}`
    process.stderr.write(`In the guest, \`${size}\` says how large this terminal is\n`)
  }
  if (stdin.isTTY) stdin.setRawMode(true)
  socket.pipe(queriesRemoved()).pipe(stdout, { end: false })
  // not a pipe: an input that is at its end must not close the console that is being watched
  stdin.on('data', (keys: Buffer) =>
    keys.includes(detach) ? socket.destroy() : socket.write(keys),
  )
  await once(socket, 'close')
  if (stdin.isTTY) stdin.setRawMode(false)
  stdin.destroy()
}

await main(import.meta, {
  ...{ name, describe, usage, positionals, options, under, examples, run },
  ownSignals: true,
})
