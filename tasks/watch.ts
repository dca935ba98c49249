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
export const positionals = { host: { describe: 'VMs; default: every running one', array: true } }
export const options = {
  reboot: { type: 'boolean', describe: 'Reboot after each upgrade, to try the new generation' },
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
    throw new Failure("Cannot watch: no running VM follows the lab's remote", {
      hint: 'just lab makes two',
    })
  }
  console.log(`Watching ${branch} of ${configRemote()}; Ctrl-C ends it`)
  for (;;) {
    const commit = await pushedAfter(seen, branch)
    console.log(`\n${commit.slice(0, 12)} was pushed`)
    // keep watching after a VM has failed
    try {
      await printUpgraded(await upgradeVms(running(), args), false)
    } catch (thrown) {
      process.stderr.write(`${explain(name, thrown)}\n`)
    }
    seen = commit
  }
}

/**
 * Resolves with the branch's commit once it has changed. git moves a branch by renaming a file in its refs, which
 * inotify reports. A poll backs that up: there may be no inotify watch left, and git packs refs and removes their directory.
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
    // a push may have come before the watch began
    looks()
  })
}

await main(import.meta, {
  ...{ name, describe, usage, positionals, options, under, examples, run },
  endsWithReader: true,
})
