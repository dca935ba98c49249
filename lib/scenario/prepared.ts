import type { Facts } from '../nix/host.ts'
import type { Vm } from '../vm/vm.ts'

/** A VM as every case finds it: it runs the world's generation, validated, golden, with its clones. */
export interface Baseline {
  tag: string
  /** Hash of all that it was made of. */
  key: string
  /** Store path that it runs, and that is golden, where the host has such a generation. */
  toplevel: string
  golden?: boolean
}

export interface Prepared extends Baseline {
  vm: Vm
  argv: string[]
  /** What its configuration declares. */
  facts: Facts
}
