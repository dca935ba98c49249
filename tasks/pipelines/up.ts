import { Exit, type ExitCode } from '../../lib/failure.ts'
import { chooseGuest } from '../../lib/nix/guest.ts'
import { chooseHosts } from '../../lib/nix/hosts.ts'
import { sshLine } from '../../lib/vm/identity.ts'
import { install } from '../../lib/packages.ts'
import { main, type Args } from '../../lib/task.ts'
import { lacking } from '../../lib/vm/preflight.ts'
import { theVm } from '../../lib/vm/vm.ts'
import * as deployVm from '../deploy-vm.ts'

export const name = 'pipelines/up'
export const describe = 'Install what is missing, then build, deploy and verify sorrow and torment'
export const usage = '[host..]'
export const positionals = {
  host: { describe: 'Hosts of the flake; default: all', array: true },
}
export const options = {
  ...deployVm.options,
  yes: { type: 'boolean', alias: 'y', describe: 'Install packages without asking' },
} as const
export const under = ['tasks/doctor.ts --install', 'tasks/deploy-vm.ts', 'tasks/verify.ts']
export const examples: [string, string][] = [
  ['npx just lab', 'From a clone to two verified VMs'],
  ['npx just lab --yes --fresh', 'From nothing, without asking'],
]

export async function run(args: Args): Promise<ExitCode> {
  const { deploy, deployment } = await import('../../lib/vm/deployment.ts')
  const { kind, attribute } = chooseGuest()
  const missing = lacking(kind)
  if (args['dry-run']) {
    const say = args['json'] ? console.error : console.log
    if (missing.length > 0) say(`would install ${missing.map((one) => one.name).join(', ')}`)
    await deployVm.run(args)
    return Exit.held
  }
  if (missing.length > 0) await install(missing, Boolean(args['yes'] || process.env['CI']))
  const json = Boolean(args['json'])
  const hosts = await chooseHosts(args['host'], attribute)
  const deployments = hosts.map((host) =>
    deployment(host, deployVm.sizes(args), Boolean(args['fresh']), deployVm.waysOf(args)),
  )
  await deploy(deployments, json)
  deployVm.printNotes(deployments)
  const { printVerified, verifyHosts } = await import('../verify.ts')
  const code = printVerified(await verifyHosts(hosts.map(theVm), json), json)
  if (!json) {
    if (deployments.every(({ changed }) => !changed)) console.log('\nEverything was there already')
    console.log(`\n${hosts.map(sshLine).join('\n')}`)
  }
  return code
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
