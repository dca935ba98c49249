import type { Scene } from './family.ts'
import type { Machine } from './machine.ts'

/** Where the agents write down what is golden, on trial and failed. */
export const state = '/var/lib/golden-generation'
/** Where the boot loader's variables are. */
export const variables = '/sys/firmware/efi/efivars'

/**
 * All that a boot depends on: every file on the ESP, the boot loader's variables, what is written down, what the
 * collector leaves, the profile and what runs. The firmware's random seed is no work of the agents.
 */
const whole = `cd /boot && find . -type d | sort && find . -type f ! -name random-seed -exec cksum {} + | sort -k 3
for name in Default OneShot; do echo "$name $(cat ${variables}/LoaderEntry$name-* 2>/dev/null | cksum)"; done
ls -A ${state}; cat ${state}/*
for link in /nix/var/nix/gcroots/golden-* /nix/var/nix/profiles/system /run/current-system; do echo "$link $(readlink "$link")"; done`

/** That state as a text, which is another one once any of it has changed. */
export async function everything(vm: Machine): Promise<string> {
  const { stdout } = await vm.root(whole, { allow: 'any' })
  // two that could not be looked at are not alike
  return stdout.includes('/loader.conf') ? stdout : `${stdout}\nnot seen (${(unseen += 1)})`
}
let unseen = 0
/** The same for a golden that was pinned anew: all but the time of that. */
export const apartFromTime = async (vm: Machine): Promise<string> =>
  (await everything(vm)).replace(/"pinnedAt":"[^"]*"/, '')

/** What a command says, with its exit code at first. */
export async function said(
  vm: Machine,
  command: string,
  as: 'root' | 'user' = 'root',
): Promise<string> {
  const exec = as === 'root' ? vm.root : vm.user
  const options = { timeout: 60 * vm.patience, allow: 'any' as const }
  const { code, stdout } = await exec(`{ ${command}; } 2>&1`, options)
  return `${code} ${stdout.trim()}`
}

/** A command that must fail, say why and leave all as it was. */
export async function refused(
  scene: Scene,
  what: string,
  why: RegExp,
  command: string,
  as?: 'root' | 'user',
): Promise<void> {
  const { vm, check } = scene
  const before = await everything(vm)
  check(`${what} is refused, with its reason`, why, await said(vm, command, as))
  check(`${what} changes nothing`, before, await everything(vm))
}
