import { hostName } from '../lib/host-name.ts'
import { table } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'
import { restore, savedOf, type Saved } from '../lib/vm/saved.ts'
import { theVm, withVms } from '../lib/vm/vm.ts'

export const name = 'restore'
export const describe = 'Put a VM back to a saved state'
export const usage = '<host> [name]'
export const positionals = {
  host: { describe: 'VM, by name' },
  name: { describe: 'Name of the saved state', default: 'default' },
}
export const options = {
  list: { type: 'boolean', describe: 'List the saved states, and restore none' },
  json: { type: 'boolean', describe: 'Print data instead of sentences' },
} as const
export const under = [
  'QMP snapshot-load   in a new QEMU, which replaces the running one',
  'QEMU guest agent: date -s   because the clock continues from the time of the save',
  'qemu-img snapshot -a   if the VM was saved while off; it is off afterwards',
]
export const examples: [string, string][] = [
  ['just restore sorrow', 'Undo everything since `just save sorrow`'],
  ['just restore sorrow --list', 'Show the saved states'],
]

export async function run(args: Args): Promise<void> {
  const vm = theVm(hostName(args['host']))
  if (args['list']) {
    const all = await savedOf(vm)
    const found = [...all].map(([saved, { at, toplevel, argv }]) => ({
      ...{ name: saved, at, toplevel, running: argv !== undefined },
    }))
    const rows = found.map((one) => [
      one.name,
      one.at,
      one.running ? 'running' : 'off',
      one.toplevel,
    ])
    if (args['json']) console.log(JSON.stringify(found, null, 2))
    else if (found.length === 0) console.log(`Nothing is saved of ${vm.host}`)
    else console.log(table([['name', 'saved', 'was', 'toplevel'], ...rows]))
    return
  }
  await withVms([vm.host], 'restore', async () => {
    const wanted = String(args['name'])
    const { saved, clock } = await restore(vm, wanted)
    if (args['json']) console.log(JSON.stringify({ host: vm.host, ...saved, clock }, null, 2))
    else console.log(inWords(vm.host, wanted, saved, clock))
  })
}

function inWords(host: string, wanted: string, { at, argv }: Saved, clock: boolean) {
  const back = `Put ${host} back to \`${wanted}\`, saved at ${at}`
  if (!argv) return `${back}; it is off, as it was then: just deploy-test-vm ${host} starts it`
  return `${back}
${
  clock
    ? 'Its clock was set to now, so timers that came due since then fire'
    : 'Its clock goes on from then: no guest agent answers that could set it'
}; SSH sessions into it are gone`
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
