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
  host: { describe: 'Hosts of the flake; all without any', array: true },
}
export const options = {
  disk: {
    type: 'string',
    env: 'LAB_DISK',
    describe: 'Size of the disk, 20G unless the VM has one',
  },
  memory: { type: 'string', env: 'LAB_MEMORY', describe: 'Memory, 2G unless the VM has it' },
  cpus: {
    type: 'number',
    least: 1,
    most: 64,
    env: 'LAB_CPUS',
    describe: 'Virtual CPUs, 2 unless the VM has them; 1 where QEMU before 8.1 emulates them',
  },
  fresh: { type: 'boolean', describe: 'Throw the VM away first: a new disk, the same keys' },
  disko: {
    type: 'boolean',
    describe: 'NixOS: the disk as its own disko lays it out, made in a VM; not run by our tests',
  },
  'open-uplink': {
    type: 'boolean',
    describe:
      'Let its uplink reach the world, as tailscale needs; closed again by the next start without',
  },
  'dry-run': { type: 'boolean', describe: 'Show every effect, have none' },
  json: { type: 'boolean', describe: 'Print data on standard output' },
} as const
export const under = [
  'mmdebstrap, mke2fs, mcopy   once: the base image; for NixOS: mke2fs or mkfs.btrfs, a base for each layout',
  'nix eval, nix-store --realise   the toplevel',
  'debugfs, mcopy, qemu-img create -b <layer> disk.qcow2; ssh-keygen',
  'qemu-system-x86_64 … ; ssh until it answers',
  'sync   in the guest, once its first boot is over',
]
export const examples: [string, string][] = [
  ['just deploy-test-vm torment', 'One VM'],
  ['just deploy-test-vm sorrow --dry-run', 'Every effect it would have'],
  ['tsx tasks/deploy-vm.ts sorrow --fresh --memory 4G', 'Anew, and larger'],
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

/** @throws Failure (usage) for a disk of disko's on a guest that has none */
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

/** Says which sizes were not had; not on standard output, where there may be data. */
export function printNotes(deployments: Deployment[]): void {
  for (const note of deployments.flatMap(({ notes }) => notes)) console.error(`Note: ${note}`)
}

/** @throws Failure (usage) for a size that no VM could have */
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
