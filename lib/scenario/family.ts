import { Failure } from '../failure.ts'
import type { StorePath } from '../nix/store.ts'
import type { RunEvent, RunRecord } from '../report/record.ts'
import type { CaseResult } from '../report/result.ts'
import type { Ground } from '../vm/ground.ts'
import type { Machine } from './machine.ts'
import type { Pause } from './pause.ts'
import type { Fault } from './oracle.ts'
import type { Prepared } from './prepared.ts'
import type { Promised } from './promise.ts'
import type { Need, Subject } from './subject.ts'
import type { Template, World } from './world.ts'

/** One promise of the setup and the ways in which the lab breaks it. */
export interface Family {
  /** The same as the name of the task's file. */
  name: string
  /** First line of --help and of `just --list`. */
  describe: string
  cases: Case[]
}

export interface Case {
  /** Short, for `--case`; unique in its family. */
  name: string
  /** What is broken and what must hold, in one line. */
  title: string
  /** The promise that it tests; it is not run on a subject that does not make it. */
  promise: Promised
  /** Its steps need the lab's own agents: their options, phases and records. */
  own?: true
  /** What its hosts must have, beyond what its promise needs of any. */
  needs?: Need[]
  /** VMs that it needs. Default 1; cases with one VM run side by side. */
  hosts?: 1 | 2
  /** Time limit of the whole case in seconds on KVM. Default 180. */
  limit?: number
  /** What must run on every VM at its end. Default `start`. */
  ends?: Ends
  run: (scene: Scene) => Promise<void>
}

/** A case of the family of boots; all of them test the promise `fallback`. */
export type TrialCase = Omit<Case, 'promise'>

/** A case of the family of dotfiles; all of them test the promise `edits` and need the lab's own agent. */
export type EditCase = Omit<Case, 'promise' | 'own'>

/**
 * The generation that the oracle expects to run when a case is over: `start` is that of the baseline, `main` that of
 * the remote's main (evaluated on the host's side), `golden` the one that was golden when the case began, booted and
 * not only switched to. `any` leaves it to the oracle's other rows.
 */
export type Ends = 'start' | 'main' | 'golden' | 'any'

/** What a case works with. The VMs are at their baseline and the world is new. */
export interface Scene {
  /** The VM, or the first of two. */
  vm: Machine
  /** The second of two. */
  other: Machine
  vms: Machine[]
  /** What is tested. */
  subject: Subject
  /** The remotes of these VMs: commits are made here, with real git. */
  world: World
  /** nix options that name the store in which this side builds; it is the binary cache of the guests. */
  store: string[]
  /** Factor for every time limit: 1 under KVM. */
  patience: number
  seed: number
  /** A number from 0 to below 1; the same sequence for the same seed. */
  random: () => number
  /** Store path of the system that a VM ran at its baseline. */
  start: (vm: Machine) => string
  /** Whether the VMs have the lab's golden generation, with its trials and its records. */
  golden: (vm: Machine) => boolean
  /** Store path of the system that the remote's branch now defines for a VM, evaluated on the host's side. */
  wanted: (vm: Machine) => Promise<string>
  /**
   * Compares and records. If it does not hold, the case still goes on, and fails at its end.
   * @param expected a value, or a pattern for text
   * @returns whether it held
   */
  check: (name: string, expected: Value | RegExp, found: Value | undefined) => boolean
  /** Like `check`, but ends the case when it does not hold. */
  must: (name: string, expected: Value | RegExp, found: Value | undefined) => void
  /** Overrides the case's `ends` for one VM, by a store path. */
  ends: (vm: Machine, toplevel: Ends | StorePath) => void
  /**
   * Announces a fault. The oracle fails the case unless the fault is then proved to have taken effect and to be
   * healed again.
   */
  fault: (name: string, host?: string) => Fault
  /** Shows what the case is waiting for. */
  say: (line: string) => void
  /** Adds an event to the run's record and its timeline. */
  event: (name: string, more?: Partial<RunEvent>) => void
  /** Ends the case as skipped, with the reason. */
  skip: (reason: string) => never
}

export type Value = string | number | boolean | null

/** The guest cannot provide what the case needs. */
export class NotApplicable extends Failure {}

/** What the cases of a run share. */
export interface Stage {
  record: RunRecord
  ground: Ground
  subject: Subject
  /** Flags that a replay needs to judge the same subject. */
  flags: string
  from: Template
  seed: number
  prepared: Map<string, Prepared>
  results: CaseResult[]
  /** Other labs share the work: what fails in this one is done there. */
  shares?: boolean
  watch?: Watch
  /** Set when the run stops at each failed case, for a person to look. */
  pause?: Pause
  /** Set while cases run with a safety net cut. */
  control?: {
    name: string
    /** The check that ends the case as soon as it is red: later checks would add nothing. */
    red: RegExp
    /** The command that runs it again. */
    replay: string
  }
}

/** What is measured in each VM of a case, besides the case's own checks. */
export interface Watch {
  /** Bash that root runs before the case begins. */
  before: string
  /** Bash that root runs once the case is over, if the VM still answers. */
  after: string
  /** @param name `<family>/<case>` */
  take: (name: string, said: string) => void
}

export interface Chosen {
  family: Family
  one: Case
}
