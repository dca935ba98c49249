import { rmSync } from 'node:fs'
import { usage as usageFailure } from '../lib/failure.ts'
import { hostName } from '../lib/host-name.ts'
import { agreed, canAsk } from '../lib/question.ts'
import { removeAbandoned, removedInWords } from '../lib/vm/copies.ts'
import { writeSshConfigOfAll } from '../lib/vm/identity.ts'
import { stopVm } from '../lib/vm/qemu.ts'
import { main, type Args } from '../lib/task.ts'
import { files, runningOf, theVm, withVms, type WhichVm } from '../lib/vm/vm.ts'

export const name = 'destroy'
export const describe = 'Delete a VM: its disk, keys and logs'
export const usage = '<host..>'
export const positionals = { host: { describe: 'VMs, by name', array: true } }
export const options = {
  yes: { type: 'boolean', alias: 'y', describe: 'Do not ask' },
  'dry-run': { type: 'boolean', describe: 'Show what would be done' },
} as const
export const under = [
  'tasks/down.ts --now',
  'rm -r <LAB_HOME>/vms/<host>',
  'rm -r <LAB_HOME>/copies/<n>   copies that a killed run left, with their QEMUs',
]
export const examples: [string, string][] = [
  ['just destroy-test-vm torment', 'Ask, then delete it'],
  ['tsx tasks/destroy.ts sorrow torment --yes', 'Delete both without asking'],
]

export async function run(args: Args): Promise<void> {
  const vms = (args['host'] as string[]).map((host) => theVmOrItsRemains(hostName(host)))
  for (const vm of vms) {
    const { host } = vm
    const { dir } = files(host)
    if (args['dry-run']) {
      console.log(`would end QEMU and the keeper of ${host}\nwould delete ${dir}`)
      continue
    }
    if (!args['yes'] && !(await mayDelete(host, dir))) {
      console.log(`${host} is kept. To delete it: just destroy-test-vm ${host} --yes`)
      continue
    }
    await withVms([host], 'destroy', async () => {
      await stopVm(vm, 0)
      rmSync(dir, { recursive: true, force: true })
    })
    writeSshConfigOfAll()
    console.log(`Deleted ${host}`)
  }
  if (args['dry-run']) return
  const found = await removeAbandoned()
  if (found.length > 0) console.log(removedInWords(found))
}

/** A record that cannot be read must not keep its VM from being deleted. */
function theVmOrItsRemains(host: string): WhichVm {
  try {
    return theVm(host)
  } catch (error) {
    if (!(error as Error).message.includes('not a record')) throw error
    // its QEMU may still run, and its command line names the disk
    return { host, uuid: runningOf(host)?.uuid ?? files(host).disk }
  }
}

async function mayDelete(host: string, dir: string): Promise<boolean> {
  if (!canAsk()) throw usageFailure(`Cannot ask whether to delete \`${host}\``, 'Pass --yes')
  return agreed(`Delete ${host} and all in ${dir}?`)
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
