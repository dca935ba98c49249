import { hostName } from '../lib/host-name.ts'
import { main, type Args } from '../lib/task.ts'
import { remove, save, savedName } from '../lib/vm/saved.ts'
import { theVm, withVms } from '../lib/vm/vm.ts'

export const name = 'save'
export const describe = 'Save the state of a VM under a name: memory, disk and EFI variables'
export const usage = '<host> [name]'
export const positionals = {
  host: { describe: 'VM, by name' },
  name: { describe: 'Name of the saved state; replaces one of the same name', default: 'default' },
}
export const options = {
  delete: { type: 'boolean', describe: 'Delete the saved state of that name' },
} as const
export const under = [
  'QMP snapshot-save   into the disks of the VM, which pauses for about a second',
  'qemu-img snapshot -c   for a VM that is off',
]
export const examples: [string, string][] = [
  ['just save sorrow', 'Before something that cannot be undone'],
  ['just save sorrow before-upgrade', 'Under a name'],
  ['just save sorrow before-upgrade --delete', 'Delete it, and free its space'],
]

export async function run(args: Args): Promise<void> {
  const vm = theVm(hostName(args['host']))
  const wanted = savedName(args['name'])
  await withVms([vm.host], 'save', async () => {
    if (args['delete']) {
      await remove(vm, wanted)
      console.log(`Deleted \`${wanted}\` of ${vm.host}`)
      return
    }
    const { argv } = await save(vm, wanted)
    const what = argv ? '' : ', which is off'
    console.log(`Saved ${vm.host}${what}, as \`${wanted}\`: just restore ${vm.host} ${wanted}`)
  })
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
