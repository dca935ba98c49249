import { explain, Failure } from '../lib/failure.ts'
import { faultName, secondsLeft } from '../lib/fault/fault.ts'
import { activeFaults } from '../lib/fault/record.ts'
import { chooseVms } from '../lib/nix/hosts.ts'
import { sshLine } from '../lib/vm/identity.ts'
import { table } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'
import { files, keepersOf, qemuOf, type Vm } from '../lib/vm/vm.ts'

export const name = 'status'
export const describe = 'Show each VM: whether it runs, its port, its generation, how to reach it'
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; every one without any', array: true } }
export const options = {
  json: { type: 'boolean', describe: 'Print data instead of a table' },
} as const
export const under = ['reads <LAB_HOME>/vms/<host>/{vm,qemu}.json and /proc']
export const examples: [string, string][] = [
  ['just status', 'All VMs'],
  ['tsx tasks/status.ts sorrow --json', 'One VM, as data'],
]

export async function run(args: Args): Promise<void> {
  const found = chooseVms(args['host']).map(describeVm)
  if (args['json']) console.log(JSON.stringify(found, null, 2))
  else if (found.length === 0) console.log('There is no VM. just lab makes and verifies two')
  else {
    const rows = found.map((vm) => [
      vm.host,
      vm.state,
      String(vm.pid ?? ''),
      String(vm.port),
      vm.ssh,
    ])
    console.log(table([['host', 'state', 'pid', 'port', 'ssh'], ...rows]))
    for (const { host, state } of found) {
      if (state === 'unattended')
        console.log(`${host} has lost its keeper: just deploy-test-vm ${host}`)
    }
    for (const { fault, left } of found.flatMap(({ faults }) => faults))
      console.log(`fault: ${fault}, heals itself in ${left} s`)
  }
}

/** `unattended` is a VM that runs but that nothing would start again after a reboot. */
function describeVm(vm: Vm) {
  const qemu = qemuOf(vm)
  const state = !qemu ? 'stopped' : keepersOf(vm).length > 0 ? 'running' : 'unattended'
  const { host, uuid, guest, port, user, toplevel } = vm
  const { dir, serial } = files(host)
  return {
    host,
    state,
    pid: qemu?.pid,
    port,
    ssh: sshLine(host),
    user,
    guest,
    uuid,
    toplevel,
    dir,
    serial,
    faults: faultsOf(vm),
  }
}

function faultsOf(vm: Vm): { fault: string; left: number }[] {
  const now = Date.now()
  try {
    return activeFaults(vm, now).map((fault) => ({
      fault: faultName(fault),
      left: secondsLeft(fault, now),
    }))
  } catch (thrown) {
    if (!(thrown instanceof Failure)) throw thrown
    // the table is worth more than the faults
    process.stderr.write(`${explain(name, thrown)}\n`)
    return []
  }
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
