import { existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { usage as usageFailure } from '../lib/failure.ts'
import { main, type Args } from '../lib/task.ts'
import { runningVm } from '../lib/vm/running.ts'
import { withMonitor } from '../lib/vm/monitor.ts'
import { files } from '../lib/vm/vm.ts'
import { writeFile } from '../lib/write-file.ts'

export const name = 'screenshot'
export const describe = "Save a VM's screen as a PNG, even while it hangs during boot"
export const usage = '<host> [file]'
export const positionals = {
  host: { describe: 'VM, by name' },
  file: { describe: 'File to write; default: <host>-<time>.png in this directory' },
}
export const under = ['QMP screendump   the display itself, without help from the guest']
export const examples: [string, string][] = [
  ['just screenshot sorrow', 'Firmware, boot menu, kernel or panic, whatever is shown'],
  ['just screenshot sorrow panic.png', 'To this file'],
]

export async function run(args: Args): Promise<void> {
  const vm = runningVm(args['host'], 'take a screenshot of')
  const path = target(vm.host, args['file'])
  // QEMU runs as the user who started it, and writes to the directory of the VM
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

/** @throws Failure (usage) if the file cannot be written there, before QEMU takes the screenshot */
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
