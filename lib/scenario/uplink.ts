import { setCable } from '../fault/cable.ts'
import type { Scene } from './family.ts'
import { mkfifo } from './fifo.ts'
import type { Machine } from './machine.ts'
import type { Remote } from './remote.ts'

/** Shell command that asks one of the lab's repositories and prints the exit status: 0, or 124 after five seconds. */
const asks = (name: string): string =>
  `timeout 5 git ls-remote -q git://10.0.3.100/${name}.git >/dev/null 2>&1; echo $?`

/**
 * Unplugs the uplink, and checks that the remote cannot be reached.
 * @returns a function that plugs it in again, and checks that the remote answers
 */
export async function cutUplink(scene: Scene, vm: Machine): Promise<() => Promise<void>> {
  const cable = (up: boolean): Promise<unknown> =>
    vm.monitor((monitor) => setCable(monitor, 'uplink', up))
  return unanswered(scene, vm, 'uplink cut', 'config', /^(?!0$)/, async () => {
    await cable(false)
    return () => cable(true)
  })
}

/**
 * Makes a remote accept connections and never answer, and checks that it does not.
 * @param of which remote of the world: the host's configuration, or its dotfiles
 * @returns a function that lets it answer again, and checks that it does
 */
export const silenceRemote = (
  scene: Scene,
  vm: Machine,
  of: 'config' | 'dotfiles',
): Promise<() => Promise<void>> => {
  const { dir }: Remote = scene.world[of]
  return unanswered(scene, vm, `silent remote (${of})`, of, /^124$/, () => mkfifo(`${dir}/HEAD`))
}

async function unanswered(
  scene: Scene,
  vm: Machine,
  named: string,
  repository: string,
  bites: RegExp,
  make: () => Promise<() => Promise<unknown>>,
): Promise<() => Promise<void>> {
  const command = asks(repository)
  const fault = scene.fault(named, vm.host)
  const end = await make()
  const found = await vm.ask(command)
  fault.bit(bites.test(found), `git ls-remote exits with ${found}`)
  return async () => {
    await end()
    await vm.until('the remote to answer', 30, `[ "$(${command})" = 0 ]`)
    fault.healed(true, 'git ls-remote exits with 0')
  }
}
