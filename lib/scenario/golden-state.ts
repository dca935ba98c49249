import type { Scene } from './family.ts'
import type { Machine } from './machine.ts'

/** Where the agents record which generation is golden, on trial or failed. */
export const state = '/var/lib/golden-generation'
/** Where the boot loader's variables are. */
export const variables = '/sys/firmware/efi/efivars'

/**
 * Everything that a boot depends on: every file on the ESP, the boot loader's variables, the agents' records, GC roots,
 * the profile and the running system. The random seed is left out: the agents do not write it.
 */
const whole = `cd /boot && find . -type d | sort && find . -type f ! -name random-seed -exec cksum {} + | sort -k 3
for name in Default OneShot; do echo "$name $(cat ${variables}/LoaderEntry$name-* 2>/dev/null | cksum)"; done
ls -A ${state}; cat ${state}/*
for link in /nix/var/nix/gcroots/golden-* /nix/var/nix/profiles/system /run/current-system; do echo "$link $(readlink "$link")"; done`

/** That state as a text, which differs as soon as any of it has changed. */
export async function everything(vm: Machine): Promise<string> {
  const { stdout } = await vm.root(whole, { allow: 'any' })
  // two states that could not be read must not compare as equal
  return stdout.includes('/loader.conf') ? stdout : `${stdout}\nnot seen (${(unseen += 1)})`
}
let unseen = 0
/** The same without the time of the pin, for comparison after golden was pinned again. */
export const apartFromTime = async (vm: Machine): Promise<string> =>
  (await everything(vm)).replace(/"pinnedAt":"[^"]*"/, '')

/** The output of a command, after its exit code. */
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

/** Checks that a command is refused with its reason and changes nothing. */
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
