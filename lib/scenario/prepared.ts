import type { Facts } from '../nix/host.ts'
import type { Vm } from '../vm/vm.ts'

/** The state in which every case finds a VM: the world's generation runs, validated and golden, with its clones. */
export interface Baseline {
  tag: string
  /** Hash of everything that it was made from. */
  key: string
  /** Store path that runs and that is golden, where the host has a golden generation. */
  toplevel: string
  golden?: boolean
}

export interface Prepared extends Baseline {
  vm: Vm
  argv: string[]
  /** What its configuration declares. */
  facts: Facts
}
