import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { usage } from '../failure.ts'
import { evaluationStore } from './store.ts'
import { labFlake, project, type GuestKind } from '../settings.ts'
import type { Vm } from '../vm/vm.ts'

/** A way to get from `hosts/<name>` to a bootable disk; all that comes after is the same code. */
export interface Guest {
  kind: GuestKind
  /** The flake's attribute set that holds this guest's configurations. */
  attribute: 'labConfigurations' | 'nixosConfigurations'
  /** Why this one, for the line that says so. */
  reason: string
}

/**
 * The guest that `LAB_GUEST` asks for. `auto` takes NixOS where the machine runs it, or where the
 * flake offers nothing else, and the embedded guest everywhere else.
 * @throws Failure (usage) for another word
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

/** By its text: an evaluation to find this out would cost every task a second. */
function offersLab(flake: string): boolean {
  if (flake === project) return true
  const file = join(flake, 'flake.nix')
  // without one, its absence is said by whoever needs it
  return !existsSync(file) || readFileSync(file, 'utf8').includes('labConfigurations')
}

/** The guest that a VM was made as, whatever `LAB_GUEST` says now. */
export const guestOf = ({ guest, host }: Vm): Guest =>
  ({ nixos, debian })[guest](`\`${host}\` was made as one`)

/** Options that name the store in which hosts are evaluated: the machine's own for NixOS. */
export const guestStore = ({ kind } = chooseGuest()): string[] =>
  kind === 'nixos' ? [] : evaluationStore()
