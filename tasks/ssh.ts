import { spawnSync } from 'node:child_process'
import { Failure, type ExitCode } from '../lib/failure.ts'
import { hostName } from '../lib/host-name.ts'
import { sshConfig } from '../lib/vm/identity.ts'
import { main, type Args } from '../lib/task.ts'
import { qemuOf, theVm } from '../lib/vm/vm.ts'

export const name = 'ssh'
export const describe = 'Open a shell on a VM, or run a command there'
export const usage = '<host> [command..]'
export const positionals = {
  host: { describe: 'VM, by name' },
  command: { describe: 'Command to run; put -- before it if it has flags', array: true },
}
export const options = {
  root: { type: 'boolean', describe: 'Log in as root instead of the primary user' },
} as const
export const under = ['ssh -F <LAB_HOME>/ssh_config <host> [command]']
export const examples: [string, string][] = [
  ['just ssh-test-vm sorrow', 'A shell'],
  ['just ssh-test-vm sorrow uptime', 'One command'],
  ['tsx tasks/ssh.ts sorrow --root -- systemctl --failed', 'A command with flags, as root'],
]

export async function run(args: Args): Promise<ExitCode> {
  const vm = theVm(hostName(args['host']))
  if (!qemuOf(vm)) {
    throw new Failure(`Cannot reach \`${vm.host}\`: it is not running`, {
      hint: `just deploy-test-vm ${vm.host}`,
    })
  }
  const command = [...(args['command'] ?? []), ...(args['--'] ?? [])] as string[]
  const alias = args['root'] ? `${vm.host}-root` : vm.host
  const { status, signal } = spawnSync('ssh', ['-F', sshConfig(), alias, ...command], {
    stdio: 'inherit',
  })
  return (status ?? (signal === 'SIGINT' ? 130 : 255)) as ExitCode
}

await main(import.meta, {
  ...{ name, describe, usage, positionals, options, under, examples, run },
  ownSignals: true,
})
