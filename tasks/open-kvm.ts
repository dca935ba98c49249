import { accessSync, constants, existsSync } from 'node:fs'
import { userInfo } from 'node:os'
import { Failure } from '../lib/failure.ts'
import { run as runCommand } from '../lib/run.ts'
import { main, type Args } from '../lib/task.ts'

const device = '/dev/kvm'
const file = '/etc/udev/rules.d/99-gitops-vm-lab-kvm.rules'

export const name = 'open-kvm'
export const describe = 'Give this user access to /dev/kvm, as CI runners need'
export const options = {
  'dry-run': { type: 'boolean', describe: 'Show what would be done' },
} as const
export const under = [
  `tee ${file}   a rule that gives ${device} to this user, now and after each boot`,
  'udevadm control --reload-rules; udevadm trigger --name-match=kvm; udevadm settle',
]
export const examples: [string, string][] = [
  ['just open-kvm', 'With sudo, unless this user can already open it or it does not exist'],
  ['just open-kvm --dry-run', 'Only the commands'],
]

export async function run(args: Args): Promise<void> {
  if (!existsSync(device)) return console.log(`There is no ${device} here: VMs are emulated`)
  if (canOpen()) return console.log(`This user can open ${device}: nothing to do`)
  const { username, uid } = userInfo()
  for (const { words, input } of stepsFor(username, uid === 0)) {
    if (args['dry-run']) console.log(`would run ${words.join(' ')}${input ? ` with ${input}` : ''}`)
    else await runCommand(words[0]!, words.slice(1), { input, hint })
  }
  if (args['dry-run']) return
  if (!canOpen()) {
    throw new Failure(`Cannot open ${device} as \`${username}\`, despite ${file}`, {
      hint: `ls -l ${device} shows its owner; without it VMs are emulated`,
    })
  }
  console.log(`This user can open ${device} now`)
}

const hint = `Without udev, as in a container, give it ${device} when you start the container`

/** The commands that give the device to a user. */
export function stepsFor(user: string, isRoot: boolean): { words: string[]; input?: string }[] {
  const sudo = isRoot ? [] : ['sudo']
  // one user, not everyone
  const rule = `KERNEL=="kvm", OWNER="${user}", OPTIONS+="static_node=kvm"\n`
  return [
    { words: [...sudo, 'tee', file], input: rule },
    { words: [...sudo, 'udevadm', 'control', '--reload-rules'] },
    { words: [...sudo, 'udevadm', 'trigger', '--name-match=kvm'] },
    { words: [...sudo, 'udevadm', 'settle'] },
  ]
}

function canOpen(): boolean {
  try {
    accessSync(device, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

await main(import.meta, { name, describe, options, under, examples, run })
