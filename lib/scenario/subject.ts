import type { LabSettings, UpgradeKind } from '../lab-settings.ts'
import type { Facts } from '../nix/host.ts'
import type { Promised } from './promise.ts'

/**
 * What upgrades the hosts, and is judged. An upgrade is started by its unit and over when the unit is; what it
 * did is seen from outside, and what it says of itself is asked only of one that says something.
 */
export interface Subject {
  kind: UpgradeKind
  /** In tables and reasons. */
  title: string
  /** Without `.service`; its timer, where it has one, is named alike. */
  unit: string
  promises: ReadonlySet<Promised>
  /** Profile that it deploys by, where that is not the system's; until its first deployment there is none. */
  profile?: string
  /** File with its own words, as `UpgradeStatus`. Without one only the result of its unit is known. */
  status?: string
  /** Option that has its settings, of NixOS's names for them, such as `allowReboot`. */
  options?: string
  /** Text of a NixOS module on top of each host, which brings it in or points it at the lab's remote. */
  module?: string
  /**
   * Shell by which it forgets what it knows of its remotes. One that has this knows a remote by what it has fetched
   * from it, so it does so once before the snapshot that every case begins at.
   */
  forgets?: string
  /** Address that it fetches from; it leads to the lab's remote. */
  fetches?: string
}

/** Shell that sets `profile` to what a subject deploys by, as long as there is none to the system's. */
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
  /** Whether the hosts have this kind by themselves. */
  here: boolean
}

export type SubjectMaker = (facts: SubjectFacts) => Subject

/** Why a subject is not asked for what a case is about; undefined where it is. */
export function notAsked(
  subject: Subject,
  { promise, own }: { promise: Promised; own?: true },
): string | undefined {
  if (!subject.promises.has(promise))
    return `n/a: ${subject.title} does not promise it (${promise})`
  return own && subject.kind !== 'lab'
    ? `n/a: it is asked in terms that only the lab's agents have, not ${subject.title}`
    : undefined
}
