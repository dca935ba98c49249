import { Exit, explain, usage, type ExitCode } from '../failure.ts'
import { faultName, links, secondsLeft, type Link } from './fault.ts'
import { faultOptions, readRequest } from './request.ts'
import { heal, inject, list, prove } from './lease.ts'
import { chooseVms } from '../nix/hosts.ts'
import { table } from '../table.ts'
import type { Args } from '../task.ts'
import { qemuOf } from '../vm/vm.ts'

/**
 * Runs a verb: `heal`, `list`, or a kind of fault, which is injected and proved.
 * @param options all flags of the command line; one that this verb does not use is refused
 */
export async function runFault(verb: string, args: Args, options: string[]): Promise<ExitCode> {
  const used = { list: ['host'], heal: ['host', 'link'] }[verb] ?? Object.keys(faultOptions)
  const foreign = options.find((key) => args[key] !== undefined && ![...used, 'json'].includes(key))
  if (foreign !== undefined)
    throw usage(`Cannot use --${foreign} with ${verb}`, 'tsx tasks/chaos-network.ts --help')
  if (verb === 'list') return await printList(args)
  if (verb === 'heal') return await healAll(args)
  const request = readRequest(verb, args)
  const faults = await inject(request)
  const proof = await prove(faults)
  const found = faults.map((fault) => ({
    ...fault,
    name: faultName(fault),
    left: secondsLeft(fault, Date.now()),
  }))
  if (args['json']) console.log(JSON.stringify({ faults: found, ...proof }, null, 2))
  else {
    for (const { name, left } of found) console.log(`${name}, heals itself in ${left} s`)
    console.log(`${proof.holds ? 'bites' : 'does NOT bite'}: ${proof.text}`)
  }
  return proof.holds ? Exit.held : Exit.checkFailed
}

async function printList(args: Args): Promise<ExitCode> {
  const found = (await Promise.all(chooseVms(args['host']).map(list))).flat()
  if (args['json']) console.log(JSON.stringify(found, null, 2))
  else if (found.length === 0) console.log('No VM has a fault')
  else {
    const rows = found.map(({ name, state, left }) => [name, state, left ? `${left} s` : 'none'])
    console.log(table([['fault', 'state', 'lease left'], ...rows]))
  }
  return Exit.held
}

/** Tries every VM, even when healing another one fails. */
async function healAll(args: Args): Promise<ExitCode> {
  const which = args['link'] === undefined ? links : links.filter((link) => link === args['link'])
  if (which.length === 0) throw usage(`Cannot heal \`${args['link']}\``, links.join(' or '))
  const vms = chooseVms(args['host'])
  const done = await Promise.allSettled(vms.map((vm) => heal(vm, which as Link[])))
  const healed = done.flatMap((one) => (one.status === 'fulfilled' ? one.value : []))
  if (args['json']) console.log(JSON.stringify(healed, null, 2))
  else {
    for (const line of healed) console.log(line)
    const running = vms.filter((vm) => qemuOf(vm)).length
    if (healed.length === 0) console.log(`Nothing to heal on ${running} running VMs`)
  }
  const failed = done.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []))
  for (const reason of failed.slice(1)) process.stderr.write(`${explain('also', reason)}\n`)
  if (failed.length > 0) throw failed[0]
  return Exit.held
}
