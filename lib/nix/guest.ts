import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { usage } from '../failure.ts'
import { evaluationStore } from './store.ts'
import { labFlake, project, type GuestKind } from '../settings.ts'
import type { Vm } from '../vm/vm.ts'

/** A way to get from `hosts/<name>` to a bootable disk; everything after that is common code. */
export interface Guest {
  kind: GuestKind
  /** The flake's attribute set that holds this guest's configurations. */
  attribute: 'labConfigurations' | 'nixosConfigurations'
  /** Why this guest was chosen, for the log line. */
  reason: string
}

/**
 * The guest that `LAB_GUEST` selects. `auto` selects NixOS where the machine runs it, or where the
 * flake offers nothing else, and otherwise the embedded guest.
 * @throws Failure (usage) for any other value
 */
export function chooseGuest(): Guest {
  const wanted = process.env['LAB_GUEST'] || 'auto'
  if (wanted === 'nixos') return nixos('LAB_GUEST says so')
  if (wanted === 'debian') return debian('LAB_GUEST says so')
  if (wanted !== 'auto') {
    throw usage(`Cannot read LAB_GUEST=\`${wanted}\``, 'Use auto, debian or nixos')
  }
  if (!offersLab(labFlake())) return nixos('the flake has no labConfigurations')
  if (existsSync('/etc/NIXOS')) {
    return nixos('this machine runs NixOS; LAB_GUEST=debian takes the embedded guest')
  }
  return debian('it needs no Nix cache')
}

const nixos = (reason: string): Guest => ({
  kind: 'nixos',
  attribute: 'nixosConfigurations',
  reason,
})
const debian = (reason: string): Guest => ({
  kind: 'debian',
  attribute: 'labConfigurations',
  reason,
})

/** Whether the text of flake.nix mentions `labConfigurations`: evaluating it would cost every task a second. */
function offersLab(flake: string): boolean {
  if (flake === project) return true
  const file = join(flake, 'flake.nix')
  // a missing flake.nix is reported later, by the code that needs it
  return !existsSync(file) || readFileSync(file, 'utf8').includes('labConfigurations')
}

/** The guest as which a VM was made, whatever `LAB_GUEST` says now. */
export const guestOf = ({ guest, host }: Vm): Guest =>
  ({ nixos, debian })[guest](`\`${host}\` was made as one`)

/** Nix options for the store in which hosts are evaluated: none for NixOS, which uses the machine's own store. */
export const guestStore = ({ kind } = chooseGuest()): string[] =>
  kind === 'nixos' ? [] : evaluationStore()
