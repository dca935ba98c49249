import type { LabSettings, UpgradeKind } from '../lab-settings.ts'
import type { Facts } from '../nix/host.ts'
import type { Promised } from './promise.ts'

/**
 * What hosts with the lab's agents may be set to do without: a clone that they upgrade from, a rollback where a check
 * fails, a golden generation, the dotfile sync, phases of their own to build and to look for room on /boot.
 */
export type Need = 'clone' | 'rollback' | 'golden' | 'sync' | 'preflight'

const needOf: Partial<Record<Promised, Need>> = {
  local: 'clone',
  rollback: 'rollback',
  checks: 'rollback',
  reach: 'rollback',
  fallback: 'golden',
  dotfiles: 'sync',
  edits: 'sync',
}

/**
 * What upgrades the hosts, and is judged. An upgrade is started by its unit and over when the unit ends. What it did is
 * seen from outside; its own status is judged only where it writes one.
 */
export interface Subject {
  kind: UpgradeKind
  /** Name in tables and reasons. */
  title: string
  /** Without `.service`; its timer, where it has one, has the same name. */
  unit: string
  promises: ReadonlySet<Promised>
  /** Profile that it deploys to, where that is not the system's; it does not exist before the first deployment. */
  profile?: string
  /** Its status file, in the form of `UpgradeStatus`. Without one only the result of its unit is known. */
  status?: string
  /** What its hosts lack, each with a reason. */
  lacks?: Partial<Record<Need, string>>
  /** Option that has its settings, under the names that NixOS uses, such as `allowReboot`. */
  options?: string
  /** Text of a NixOS module that each host gets, to install the subject or to point it at the lab's remote. */
  module?: string
  /**
   * Shell that makes it forget what it knows of its remotes. A subject with this knows a remote only from a fetch, so it
   * fetches once before the snapshot at which every case begins.
   */
  forgets?: string
  /** Address that it fetches from; the lab's remote answers there. */
  fetches?: string
}

/** Phase in which hosts are that skip the build and the preflight: they build as part of the switch. */
export const phaseOf = ({ lacks }: Subject, phase: string): string =>
  lacks?.preflight && (phase === 'build' || phase === 'preflight') ? 'switch' : phase

/** Shell that sets `profile` to the subject's profile, or to the system's as long as that does not exist. */
export const profileOf = ({ profile }: Subject): string =>
  profile === undefined
    ? `profile=${systemProfile}`
    : `profile=${profile}; [ -e "$profile" ] || profile=${systemProfile}`

const systemProfile = '/nix/var/nix/profiles/system'

export interface SubjectFacts {
  branch: string
  upgrade: LabSettings['upgrade']
  /** The unit that `lab.toml` names, as the hosts have it. */
  declared: Facts['agents']['upgrade']
  /** What the hosts lack of what the lab's agents may have. */
  lacks: Subject['lacks']
  /** Whether the hosts' own configuration has this kind. */
  here: boolean
}

export type SubjectMaker = (facts: SubjectFacts) => Subject

/** Why a case is not run on a subject; undefined where it is. */
export function notAsked(
  subject: Subject,
  { promise, own, needs = [] }: { promise: Promised; own?: true; needs?: Need[] },
): string | undefined {
  if (!subject.promises.has(promise))
    return `n/a: ${subject.title} does not promise it (${promise})`
  const missing = [needOf[promise], ...needs].find((need) => need && subject.lacks?.[need])
  if (missing) return `n/a: ${subject.lacks![missing]}`
  return own && subject.kind !== 'lab'
    ? `n/a: it is asked in terms that only the lab's agents have, not ${subject.title}`
    : undefined
}
