import { existsSync } from 'node:fs'
import { Failure, usage } from './failure.ts'
import type { GuestKind } from './settings.ts'

/** A way to get from `hosts/<name>` to a bootable disk; all that comes after is the same code. */
export interface Guest {
  kind: GuestKind
  /** The flake's attribute set that holds this guest's configurations. */
  attribute: 'labConfigurations' | 'nixosConfigurations'
  /** Why this one, for the line that says so. */
  reason: string
}

/**
 * The guest that `LAB_GUEST` asks for; `auto` takes the embedded one.
 * @throws Failure (usage) for another word
 */
export function chooseGuest(): Guest {
  const wanted = process.env['LAB_GUEST'] || 'auto'
  if (!['auto', 'debian', 'nixos'].includes(wanted)) {
    throw usage(`Cannot read LAB_GUEST=\`${wanted}\``, 'Use auto, debian or nixos')
  }
  if (wanted === 'nixos') {
    throw new Failure(
      'Cannot deploy the `nixos` guest yet: its disk image is not built by the lab',
      {
        hint: 'LAB_GUEST=debian runs the same configuration on the embedded guest',
      },
    )
  }
  const reason =
    wanted === 'debian'
      ? 'LAB_GUEST says so'
      : existsSync('/etc/NIXOS')
        ? 'the lab builds no NixOS disk yet'
        : 'it needs no Nix cache'
  return { kind: 'debian', attribute: 'labConfigurations', reason }
}
