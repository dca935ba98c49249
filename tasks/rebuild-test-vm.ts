import { Exit, Failure, type ExitCode } from '../lib/failure.ts'
import type { Ground } from '../lib/vm/ground.ts'
import { guestOf } from '../lib/nix/guest.ts'
import { buildHosts, readHost, type Host } from '../lib/nix/host.ts'
import { someVms } from '../lib/nix/hosts.ts'
import { sshTarget } from '../lib/vm/identity.ts'
import { connected } from '../lib/ssh/ssh.ts'
import { dryRun, runLanes, type Lane } from '../lib/steps.ts'
import { switchTo } from '../lib/vm/switch.ts'
import { main, type Args } from '../lib/task.ts'
import { qemuOf, withVms, writeVm, type Vm } from '../lib/vm/vm.ts'
import { printVerified, verifyHosts } from './verify.ts'

export const name = 'rebuild-test-vm'
export const describe = 'Build the working tree, copy it to a running VM, switch and verify'
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; default: all', array: true } }
export const options = {
  json: { type: 'boolean', describe: 'Print data instead of a table' },
  'dry-run': { type: 'boolean', describe: 'Show every effect, but change nothing' },
} as const
export const under = [
  'nix eval, nix-store --realise   the toplevel of the working tree',
  'nix-store --export <missing paths> | ssh root@<vm> nix-store --import   (debian)',
  'nix copy --to ssh://<vm>-root <toplevel>   (nixos)',
  'nix-env --profile /nix/var/nix/profiles/system --set <toplevel>',
  '<toplevel>/bin/switch-to-configuration switch',
  'tasks/verify.ts <host>',
]
export const examples: [string, string][] = [
  ['just rebuild-test-vm sorrow', 'After a change in the flake'],
  ['tsx tasks/rebuild-test-vm.ts', 'Every VM'],
]

interface Rebuild {
  vm: Vm
  ground: Ground
  built?: Host
}

export async function run(args: Args): Promise<ExitCode> {
  const vms = someVms(args['host'])
  const grounds = { debian: {} as Ground, nixos: {} as Ground }
  const lanes = vms.map((vm) => lane({ vm, ground: grounds[vm.guest] }))
  if (args['dry-run']) {
    await dryRun(lanes, Boolean(args['json']))
    return Exit.held
  }
  for (const vm of vms) {
    if (!qemuOf(vm)) {
      throw new Failure(`Cannot rebuild \`${vm.host}\`: it is not running`, {
        hint: `just deploy-test-vm ${vm.host} starts it and brings it up to date`,
      })
    }
  }
  const { baseImage, preflight } = await import('../lib/vm/ground.ts')
  const quiet = Boolean(args['json'])
  const hosts = vms.map(({ host }) => host)
  await withVms(hosts, 'rebuild', async () => {
    for (const vm of vms) {
      const ground = grounds[vm.guest]
      const guest = guestOf(vm)
      if (!ground.store) {
        Object.assign(ground, await preflight(guest), await baseImage(() => undefined, guest))
      }
    }
    await runLanes(lanes, { quiet })
  })
  return printVerified(await verifyHosts(vms, quiet), quiet)
}

const lane = (context: Rebuild): Lane<Rebuild> => ({
  title: context.vm.host,
  context,
  steps: [
    {
      title: 'evaluate and build',
      would: ({ vm }) => [`build the toplevel of ${vm.host} from the working tree`],
      run: async (c, say) => {
        c.built = await readHost(c.vm.host, c.ground.guest.attribute, c.ground.store)
        await buildHosts([c.built], c.ground.store, say)
      },
    },
    {
      title: 'copy and switch',
      would: ({ vm }) => [
        `copy what ${vm.host} lacks of it, over SSH on port ${vm.port}`,
        'make it a new generation of the system profile, and switch to it',
      ],
      run: async (c, say) => {
        const { store, accelerator } = c.ground
        const sent = await connected(sshTarget(c.vm, 'root'), (root) =>
          switchTo(root, c.built!, store, accelerator.patience, say),
        )
        writeVm({ ...c.vm, toplevel: c.built!.toplevel })
        // an older nix does not say how much it copied
        return sent > 0 ? `${(sent / 1000).toFixed(0)} kB sent` : undefined
      },
    },
  ],
})

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
