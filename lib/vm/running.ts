import { Failure } from '../failure.ts'
import { hostName } from '../host-name.ts'
import { sshConfig } from './identity.ts'
import { qemuOf, theVm, type Vm } from './vm.ts'

/**
 * A VM that runs, by a name as it was typed.
 * @param what is to be done with it, as a message names it: `take a screenshot of`
 * @throws Failure when it is no name, there is no such VM, or it does not run
 */
export function runningVm(name: string, what: string): Vm {
  const vm = theVm(hostName(name))
  if (qemuOf(vm)) return vm
  throw new Failure(`Cannot ${what} \`${vm.host}\`: it is not running`, {
    hint: `just deploy-test-vm ${vm.host} starts it`,
  })
}

/** Arguments of ssh and scp that name the lab's VMs, and give one up that does not answer. */
export const sshArgs = (): string[] => ['-F', sshConfig(), '-o', 'ConnectTimeout=30']
