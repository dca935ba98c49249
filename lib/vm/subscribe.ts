import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Host } from '../nix/host.ts'
import { inHome, labSettings } from '../lab-settings.ts'
import { project } from '../settings.ts'
import { quote } from '../quote.ts'
import { connected } from '../ssh/ssh.ts'
import { sshTarget } from './identity.ts'
import {
  configRemote,
  dotfilesRemote,
  publishDotfiles,
  publishFlake,
  publishedCommit,
  serveLab,
} from './remotes.ts'
import type { Vm } from './vm.ts'

/** Publishes the flake and the dotfiles to the lab's own remotes, unless those have something already. */
export async function ensureRemotes(): Promise<void> {
  const { branch } = await labSettings()
  const has = async (bare: string): Promise<boolean> =>
    existsSync(bare) && (await publishedCommit(bare, branch)) !== undefined
  if (!(await has(dotfilesRemote()))) await publishDotfiles()
  if (!(await has(configRemote()))) await publishFlake()
}

/**
 * Clones the lab's remotes in a guest, as its user would: the flake where the host upgrades from, and
 * the dotfiles where chezmoi looks for them. Leaves anything that exists there alone.
 * @param limit seconds
 * @throws Failure with the guest's error message
 */
export async function subscribe(vm: Vm, { facts }: Host, limit: number): Promise<void> {
  const { branch, paths } = await labSettings()
  serveLab(vm.host)
  const clones = [
    [facts.clones.flake ?? inHome(paths.flake, facts.home), 'config.git'],
    [inHome(paths.dotfiles, facts.home), 'dotfiles.git'],
  ]
  const words = [vm.user, facts.home, branch, ...clones.flat()]
  await connected(sshTarget(vm, 'root'), (root) =>
    root.exec(`sh -s -- ${words.map(quote).join(' ')}`, {
      input: readFileSync(join(project, 'lib/vm/subscribe.sh'), 'utf8'),
      timeout: limit,
      hint: `just ssh-test-vm ${vm.host}`,
    }),
  )
}
