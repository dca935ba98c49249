import { run } from './run.ts'

/** From git's words where it reads nothing of a repository, as that is another user's: its command to allow it. */
export const allowing = (said: string): string | undefined =>
  /git config --global --add safe\.directory .*/.exec(said)?.[0]

/** The same of a directory; nix, which asks git, gives no reason that a person could read. */
export async function allowingFor(directory: string): Promise<string | undefined> {
  const env = { LC_ALL: 'C' }
  const { stderr } = await run('git', ['-C', directory, 'rev-parse'], { allow: [127, 128], env })
  return allowing(stderr)
}
