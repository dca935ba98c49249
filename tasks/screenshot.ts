import { existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { usage as usageFailure } from '../lib/failure.ts'
import { main, type Args } from '../lib/task.ts'
import { runningVm } from '../lib/vm/running.ts'
import { withMonitor } from '../lib/vm/monitor.ts'
import { files } from '../lib/vm/vm.ts'
import { writeFile } from '../lib/write-file.ts'

export const name = 'screenshot'
export const describe = "Save what a VM's screen shows as a PNG, also of one that hangs in its boot"
export const usage = '<host> [file]'
export const positionals = {
  host: { describe: 'VM, by name' },
  file: { describe: 'Where to; <host>-<time>.png in this directory without' },
}
export const under = ['QMP screendump   the display itself, which needs nothing of the guest']
export const examples: [string, string][] = [
  ['just screenshot sorrow', 'Firmware, boot menu, kernel or a panic, whatever is there'],
  ['just screenshot sorrow panic.png', 'Into a file of that name'],
]

export async function run(args: Args): Promise<void> {
  const vm = runningVm(args['host'], 'take a screenshot of')
  const path = target(vm.host, args['file'])
  // QEMU writes in the directory of the VM, as whoever started it
  const draft = join(files(vm.host).dir, `screen-${process.pid}.png`)
  try {
    await withMonitor(vm, (monitor) =>
      monitor.execute('screendump', { filename: draft, format: 'png' }),
    )
    writeFile(path, readFileSync(draft), { over: 'any' })
  } finally {
    rmSync(draft, { force: true })
  }
  console.log(path)
}

/** @throws Failure (usage) for a place where no file can be, before anything is asked of QEMU */
function target(host: string, asked: string | undefined): string {
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '')
  const usual = `${host}-${stamp}.png`
  const path = resolve(asked ?? usual)
  if (existsSync(path)) {
    const found = statSync(path)
    if (found.isDirectory()) return join(path, usual)
    if (!found.isFile()) throw usageFailure(`Cannot write \`${path}\`: it is not a regular file`)
  } else if (!existsSync(dirname(path))) {
    throw usageFailure(`Cannot write \`${path}\`: there is no directory \`${dirname(path)}\``)
  }
  return path
}

await main(import.meta, { name, describe, usage, positionals, under, examples, run })
