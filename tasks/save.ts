import { hostName } from '../lib/host-name.ts'
import { main, type Args } from '../lib/task.ts'
import { remove, save, savedName } from '../lib/vm/saved.ts'
import { theVm, withVms } from '../lib/vm/vm.ts'

export const name = 'save'
export const describe = 'Keep a VM as it is now under a name: memory, disk and EFI variables'
export const usage = '<host> [name]'
export const positionals = {
  host: { describe: 'VM, by name' },
  name: { describe: 'Name to save it under, in place of what has it', default: 'default' },
}
export const options = {
  delete: { type: 'boolean', describe: 'Delete what is saved under the name' },
} as const
export const under = [
  'QMP snapshot-save   into the disks of the VM, which stands still meanwhile, a second or so',
  'qemu-img snapshot -c   for a VM that is off',
]
export const examples: [string, string][] = [
  ['just save sorrow', 'Before something that cannot be undone'],
  ['just save sorrow before-upgrade', 'Under a name of its own'],
  ['just save sorrow before-upgrade --delete', 'Delete it, and have its room back'],
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
