import { chooseVms } from '../lib/nix/hosts.ts'
import { stopVm } from '../lib/vm/qemu.ts'
import { counting } from '../lib/retry.ts'
import { runLanes, dryRun, type Lane } from '../lib/steps.ts'
import { main, type Args } from '../lib/task.ts'
import { abandonedCopies, removeAbandoned, removedInWords } from '../lib/vm/copies.ts'
import { qemuOf, withVms, type Vm } from '../lib/vm/vm.ts'

export const name = 'down'
export const describe = 'Power VMs off and stop their keepers; their disks stay'
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; default: all', array: true } }
export const options = {
  grace: {
    type: 'number',
    most: 3600,
    default: 30,
    describe: 'Seconds in which a guest may power off by itself',
  },
  now: { type: 'boolean', describe: 'Cut the power at once' },
  'dry-run': { type: 'boolean', describe: 'Show what would be done' },
} as const
export const under = [
  'kill <keeper>',
  'QMP system_powerdown, then SIGTERM and SIGKILL to QEMU',
  'rm -r <LAB_HOME>/copies/<n>   copies that a killed run left, with their QEMUs',
]
export const examples: [string, string][] = [
  ['just down', 'Stop every VM'],
  ['tsx tasks/down.ts sorrow --now', 'Cut the power of one'],
]

export async function run(args: Args): Promise<void> {
  const grace = args['now'] ? 0 : args['grace']
  const vms = chooseVms(args['host'])
  if (vms.length === 0) console.log('There is no VM to stop')
  const lanes = vms.map((vm) => lane(vm, grace))
  if (args['dry-run']) await dryRun(lanes)
  else await runLanes(lanes)
  await removeCopies(Boolean(args['dry-run']))
}

/** Removes the copies of a killed run, which nothing else would end. */
async function removeCopies(dry: boolean): Promise<void> {
  const found = dry ? await abandonedCopies() : await removeAbandoned()
  for (const { home } of dry ? found : [])
    console.log(`would end the processes of ${home}, and delete it`)
  if (!dry && found.length > 0) console.log(removedInWords(found))
}

const lane = (vm: Vm, grace: number): Lane<Vm> => ({
  title: vm.host,
  context: vm,
  steps: [
    {
      title: 'power off',
      would: () => [
        `end the keeper, ask the guest to power off, cut it off after ${grace} s`,
        `signal only pid ${qemuOf(vm)?.pid ?? '(none runs)'}`,
      ],
      run: (_, say) =>
        withVms([vm.host], 'stop', () =>
          counting('power off', grace, say, () => stopVm(vm, grace)),
        ),
    },
  ],
})

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
