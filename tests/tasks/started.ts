import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { project } from '../../lib/settings.ts'

/** Exit code and output of a task's process. */
export interface Ended {
  code: number | null
  out: string
  err: string
}

/**
 * Starts a task as a user does.
 * @param env what differs from the environment of the tests
 */
export const startTask = (
  name: string,
  args: string[],
  env: Record<string, string> = {},
): ChildProcessWithoutNullStreams =>
  spawn(process.execPath, ['--import', 'tsx', `tasks/${name}.ts`, ...args], {
    cwd: project,
    env: { ...process.env, ...env },
  })

/** Waits for a process, however it ends. */
export async function ended(child: ChildProcessWithoutNullStreams): Promise<Ended> {
  let [out, err] = ['', '']
  child.stdout.on('data', (text) => (out += text))
  child.stderr.on('data', (text) => (err += text))
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  return { code, out, err }
}
