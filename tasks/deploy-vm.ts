import type { Deployment } from '../lib/vm/deployment.ts'
import { usage as usageFailure } from '../lib/failure.ts'
import { chooseGuest } from '../lib/nix/guest.ts'
import { chooseHosts } from '../lib/nix/hosts.ts'
import { labSettings } from '../lib/lab-settings.ts'
import { sshLine } from '../lib/vm/identity.ts'
import { gib } from '../lib/vm/preflight.ts'
import { bytes } from '../lib/settings.ts'
import { dryRun } from '../lib/steps.ts'
import { main, type Args } from '../lib/task.ts'
import { theVm } from '../lib/vm/vm.ts'

export const name = 'deploy-vm'
export const describe = 'Bring a VM up to its configuration: image, disk, identity, start, SSH'
export const usage = '[host..]'
export const positionals = {
  host: { describe: 'Hosts of the flake; default: all', array: true },
}
export const options = {
  disk: {
    type: 'string',
    env: 'LAB_DISK',
    describe: 'Size of the disk; default: that of the VM, or 20G',
  },
  memory: { type: 'string', env: 'LAB_MEMORY', describe: 'Memory; default: that of the VM, or 2G' },
  cpus: {
    type: 'number',
    least: 1,
    most: 64,
    env: 'LAB_CPUS',
    describe: 'Virtual CPUs; default: those of the VM, or 2; 1 if QEMU before 8.1 emulates them',
  },
  fresh: { type: 'boolean', describe: 'Discard the VM first: a new disk, the same keys' },
  disko: {
    type: 'boolean',
    describe: 'NixOS: use the disk layout of its disko, made in a VM; not run by our tests',
  },
  'open-uplink': {
    type: 'boolean',
    describe:
      'Open its uplink to the internet, as tailscale needs, until the next start without this flag',
  },
  'dry-run': { type: 'boolean', describe: 'Show every effect, but change nothing' },
  json: { type: 'boolean', describe: 'Print data on standard output' },
} as const
export const under = [
  'mmdebstrap, mke2fs, mcopy   once: the base image; for NixOS: mke2fs or mkfs.btrfs, a base for each layout',
  'nix eval, nix-store --realise   the toplevel',
  'debugfs, mcopy, qemu-img create -b <layer> disk.qcow2; ssh-keygen',
  'qemu-system-x86_64 … ; ssh until it answers',
  'sync   in the guest, after its first boot',
]
export const examples: [string, string][] = [
  ['just deploy-test-vm torment', 'One VM'],
  ['just deploy-test-vm sorrow --dry-run', 'What it would do'],
  ['tsx tasks/deploy-vm.ts sorrow --fresh --memory 4G', 'From nothing, with more memory'],
]

export async function run(args: Args): Promise<void> {
  const { deploy, deployment, groundLane, lane } = await import('../lib/vm/deployment.ts')
  const { attribute } = chooseGuest()
  const size = sizes(args)
  await labSettings()
  const hosts = await chooseHosts(args['host'], attribute, args['dry-run'])
  const ways = waysOf(args)
  const deployments = hosts.map((host) => deployment(host, size, Boolean(args['fresh']), ways))
  if (args['dry-run']) {
    await dryRun([groundLane(deployments), ...deployments.map(lane)], Boolean(args['json']))
    printNotes(deployments)
    return
  }
  await deploy(deployments, Boolean(args['json']))
  printNotes(deployments)
  const vms = hosts.map(theVm)
  if (args['json']) console.log(JSON.stringify(vms, null, 2))
  else for (const { host } of vms) console.log(sshLine(host))
}

/** @throws Failure (usage) for --disko on a guest other than nixos */
export function waysOf(args: Args): Partial<Pick<Deployment, 'disko' | 'openUplink'>> {
  const { kind, reason } = chooseGuest()
  if (args['disko'] && kind !== 'nixos') {
    throw usageFailure(
      `Cannot use --disko: the guest is \`${kind}\`, as ${reason}`,
      'LAB_GUEST=nixos',
    )
  }
  return { openUplink: Boolean(args['open-uplink']), ...(args['disko'] ? { disko: true } : {}) }
}

/** Prints the notes, such as a size that was not applied, on standard error: standard output may hold data. */
export function printNotes(deployments: Deployment[]): void {
  for (const note of deployments.flatMap(({ notes }) => notes)) console.error(`Note: ${note}`)
}

/** @throws Failure (usage) for a size that no VM can have */
export function sizes(args: Args): Deployment['size'] {
  const size: Deployment['size'] = {}
  if (args['disk'] !== undefined) size.disk = atLeast(bytes(args['disk'], 'a disk size'), '4G')
  if (args['memory'] !== undefined) size.memory = atLeast(bytes(args['memory'], 'memory'), '512M')
  if (args['cpus'] !== undefined) size.cpus = args['cpus']
  return size
}

function atLeast(size: number, least: string): number {
  if (size >= bytes(least, 'a size')) return size
  throw usageFailure(`Cannot make a VM with ${gib(size)}`, `The least that works is ${least}`)
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
