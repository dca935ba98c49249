import type { Machine } from './machine.ts'

export interface OracleRow {
  name: string
  state: 'ok' | 'failed' | 'n/a'
  expected: string
  /** What was found; for `n/a` the reason. */
  found: string
}

/** A fault on its way from announced to healed; each step carries the measurement that proves it. */
export interface Fault {
  name: string
  host?: string
  /** Says what was measured while it was on, and whether that shows it. */
  bit: (held: boolean, measured: string) => void
  /** Says what was measured after it, and whether that shows that it is gone. */
  healed: (held: boolean, measured: string) => void
}

export interface FaultState {
  name: string
  host?: string
  bit?: { held: boolean; measured: string }
  healed?: { held: boolean; measured: string }
}

/** Every fault must have bitten and be gone, by what was measured. */
export function judgeFaults(faults: FaultState[]): OracleRow[] {
  return faults.flatMap(({ name, host, ...fault }) =>
    (['bit', 'healed'] as const).map((step): OracleRow => {
      const seen = fault[step]
      return {
        name: `fault ${name}${host ? ` on ${host}` : ''} ${step}`,
        state: seen?.held ? 'ok' : 'failed',
        expected: 'proved by a measurement',
        found: seen?.measured ?? 'not measured',
      }
    }),
  )
}

export interface Expected {
  /** Store path that must run; undefined where the case leaves it open. */
  running: string | undefined
}

/** Asks a VM, from inside and outside, whether it is what it must be after any case. */
export async function askOracle(vm: Machine, expected: Expected): Promise<OracleRow[]> {
  const running = await vm.running()
  return [
    {
      name: 'running',
      state: expected.running === undefined || running === expected.running ? 'ok' : 'failed',
      expected: expected.running ?? 'any',
      found: running,
    },
  ]
}
