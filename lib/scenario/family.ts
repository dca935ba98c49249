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
import type { Subject } from './subject.ts'
import type { Template, World } from './world.ts'

/** One promise of the setup and the ways in which the lab breaks it. */
export interface Family {
  /** As the task's file. */
  name: string
  /** First line of --help and of `just --list`. */
  describe: string
  cases: Case[]
}

export interface Case {
  /** Short, for `--case`; unique in its family. */
  name: string
  /** What is done and what must come of it, one line. */
  title: string
  /** What it puts to the test; it is not run on a subject that does not promise it. */
  promise: Promised
  /** Its steps are in terms that only the lab's own agents have: their options, phases and records. */
  own?: true
  /** VMs that it needs. Default 1; those that need one run side by side. */
  hosts?: 1 | 2
  /** Seconds on KVM for the whole case. Default 180. */
  limit?: number
  /** What must run on every VM at its end. Default `start`. */
  ends?: Ends
  run: (scene: Scene) => Promise<void>
}

/** A case of the boots' family, all of which is about the promise `fallback`. */
export type TrialCase = Omit<Case, 'promise'>

/** A case of the dotfiles' family, all of which is about `edits`, in terms of the lab's own agent. */
export type EditCase = Omit<Case, 'promise' | 'own'>

/**
 * What must run when a case is over, for the oracle: `start` is the generation of the baseline,
 * `main` the one that the remote's main makes (evaluated on the host's side), `golden` the one that
 * was pinned as golden when the case began, booted and not only switched to. `any` leaves it to the
 * oracle's other rows.
 */
export type Ends = 'start' | 'main' | 'golden' | 'any'

/** What a case has in its hands. The VMs are at their baseline and the world is new. */
export interface Scene {
  /** The VM, or the first of two. */
  vm: Machine
  /** The second of two. */
  other: Machine
  vms: Machine[]
  /** What is judged. */
  subject: Subject
  /** The remotes of these VMs: commits are made here, with real git. */
  world: World
  /** nix options that name the store in which this side builds, which guests have for their binary cache. */
  store: string[]
  /** What multiplies every limit: 1 under KVM. */
  patience: number
  seed: number
  /** From 0 to below 1; the same ones for the same seed. */
  random: () => number
  /** Store path that the VMs ran at their baseline. */
  start: (vm: Machine) => string
  /** Whether the VMs have the lab's golden generation, with its trials and its records. */
  golden: (vm: Machine) => boolean
  /** Store path that the remote's branch makes of a VM now, evaluated on the host's side. */
  wanted: (vm: Machine) => Promise<string>
  /**
   * Compares and records; goes on either way, and the case fails at its end.
   * @param expected a value, or a pattern for text
   * @returns whether it held
   */
  check: (name: string, expected: Value | RegExp, found: Value | undefined) => boolean
  /** As `check`, and ends the case when it does not hold. */
  must: (name: string, expected: Value | RegExp, found: Value | undefined) => void
  /** Overrides the case's `ends` for one VM, by a store path. */
  ends: (vm: Machine, toplevel: Ends | StorePath) => void
  /**
   * Announces a fault. The oracle fails a case whose fault was not proved to have bitten, or was
   * not proved healed.
   */
  fault: (name: string, host?: string) => Fault
  /** Shows the wait that the case is in. */
  say: (line: string) => void
  /** Puts something on the run's record and its timeline. */
  event: (name: string, more?: Partial<RunEvent>) => void
  /** Ends the case as skipped, with the reason. */
  skip: (reason: string) => never
}

export type Value = string | number | boolean | null

/** The guest cannot have what the case needs. */
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
  /** Other labs do the same work: what cannot be done in this one is done there. */
  shares?: boolean
  watch?: Watch
  /** Somebody looks at what fails. */
  pause?: Pause
  /** Set while cases run with a safety net cut. */
  control?: {
    name: string
    /** The check with which the case ends as soon as it is red: nothing after it would say more. */
    red: RegExp
    /** The command that runs it again. */
    replay: string
  }
}

/** What is looked at in each VM of a case, beside what the case itself asks. */
export interface Watch {
  /** Bash that root runs before the case begins. */
  before: string
  /** Bash that root runs once the case is over, where the VM still answers. */
  after: string
  /** @param name `<family>/<case>` */
  take: (name: string, said: string) => void
}

export interface Chosen {
  family: Family
  one: Case
}
