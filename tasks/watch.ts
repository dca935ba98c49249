import { watch as watchFiles, type FSWatcher } from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure, explain } from '../lib/failure.ts'
import { labSettings } from '../lib/lab-settings.ts'
import { chooseVms } from '../lib/nix/hosts.ts'
import { main, type Args } from '../lib/task.ts'
import { configRemote, publishedCommit } from '../lib/vm/remotes.ts'
import { qemuOf } from '../lib/vm/vm.ts'
import { printUpgraded, upgradeVms } from './upgrade-test-vm.ts'

export const name = 'watch'
export const describe = "Upgrade every VM on each push to the lab's remote, until Ctrl-C"
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; every one that runs without', array: true } }
export const options = {
  reboot: { type: 'boolean', describe: 'Reboot after each upgrade, so that it is tried' },
} as const
export const under = [
  "watches <LAB_HOME>/srv/.lab/config.git, the branch of the lab's remote",
  'tasks/upgrade-test-vm.ts',
]
export const examples: [string, string][] = [
  ['just watch', 'In one terminal; `just publish` or `git push lab` in another'],
  ['just watch sorrow', 'One VM'],
]

export async function run(args: Args): Promise<void> {
  const { branch } = await labSettings()
  const running = () => chooseVms(args['host']).filter((vm) => qemuOf(vm))
  let seen = await publishedCommit(configRemote(), branch)
  if (running().length === 0 || seen === undefined) {
    throw new Failure('Cannot watch: no VM that runs is subscribed', { hint: 'just lab makes two' })
  }
  console.log(`Watching ${branch} of ${configRemote()}; Ctrl-C ends it`)
  for (;;) {
    const commit = await pushedAfter(seen, branch)
    console.log(`\n${commit.slice(0, 12)} was pushed`)
    // a VM that fails is no reason to stop watching
    try {
      await printUpgraded(await upgradeVms(running(), args), false)
    } catch (thrown) {
      process.stderr.write(`${explain(name, thrown)}\n`)
    }
    seen = commit
  }
}

/**
 * Resolves with the branch's commit when it is another; git moves a branch by renaming a file of its refs. That is
 * looked for now and then as well: there may be no inotify left, and git packs refs and removes their directory.
 */
export function pushedAfter(seen: string, branch: string): Promise<string> {
  const refs = dirname(join(configRemote(), 'refs/heads', branch))
  return new Promise((resolve, reject) => {
    let watcher: FSWatcher | undefined
    const look = async (): Promise<void> => {
      const now = await publishedCommit(configRemote(), branch)
      if (now === undefined || now === seen) return
      watcher?.close()
      clearInterval(poll)
      resolve(now)
    }
    const looks = (): void => void look().catch(reject)
    const poll = setInterval(looks, 5000)
    try {
      watcher = watchFiles(refs, looks).on('error', () => watcher?.close())
    } catch {}
    // pushed while nobody watched
    looks()
  })
}

await main(import.meta, {
  ...{ name, describe, usage, positionals, options, under, examples, run },
  endsWithReader: true,
})
