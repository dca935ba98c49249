import type { Scene } from './family.ts'
import type { Machine } from './machine.ts'

/**
 * Runs a command of the agents and returns its output. If it fails, that is a failed check, not an error of the lab.
 * @param as user that runs it; default: root
 */
export async function told(
  scene: Scene,
  vm: Machine,
  command: string,
  as: 'root' | 'user' = 'root',
): Promise<string> {
  const exec = as === 'root' ? vm.root : vm.user
  const { code, stdout, stderr } = await exec(command, { timeout: 60 * vm.patience, allow: 'any' })
  const why = stderr.trim().split('\n').at(-1)
  scene.must(`\`${command}\` succeeds`, 'exit 0', code === 0 ? 'exit 0' : `exit ${code}: ${why}`)
  return stdout.trim()
}

/** Runs the command that an agent prints between backticks: with `sudo` as root, else as the host's user. */
export async function doAsTold(scene: Scene, vm: Machine, said: string): Promise<void> {
  const [, sudo, command] = /`(sudo )?([^`]+)`/.exec(said) ?? []
  scene.must('the message names a command to run', /./, command)
  await told(scene, vm, command!, sudo ? 'root' : 'user')
}
