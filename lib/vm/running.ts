import { Failure } from '../failure.ts'
import { hostName } from '../host-name.ts'
import { sshConfig } from './identity.ts'
import { qemuOf, theVm, type Vm } from './vm.ts'

/**
 * A running VM, by its name as typed.
 * @param what verb for messages: `take a screenshot of`
 * @throws Failure when the name is not valid, there is no such VM, or it does not run
 */
export function runningVm(name: string, what: string): Vm {
  const vm = theVm(hostName(name))
  if (qemuOf(vm)) return vm
  throw new Failure(`Cannot ${what} \`${vm.host}\`: it is not running`, {
    hint: `just deploy-test-vm ${vm.host} starts it`,
  })
}

/** Arguments of ssh and scp, for the names of the lab's VMs and a time limit on connecting. */
export const sshArgs = (): string[] => ['-F', sshConfig(), '-o', 'ConnectTimeout=30']
