import { run } from './run.ts'

/** When git refuses to read another user's repository: the command in its message that allows it. */
export const allowing = (said: string): string | undefined =>
  /git config --global --add safe\.directory .*/.exec(said)?.[0]

/** The same for a directory, by asking git: nix, which calls git, gives no readable reason. */
export async function allowingFor(directory: string): Promise<string | undefined> {
  const env = { LC_ALL: 'C' }
  const { stderr } = await run('git', ['-C', directory, 'rev-parse'], { allow: [127, 128], env })
  return allowing(stderr)
}
