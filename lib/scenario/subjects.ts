import { usage } from '../failure.ts'
import { labSettings, ownUnits, upgradeKinds, type UpgradeKind } from '../lab-settings.ts'
import { unknown } from '../nearest.ts'
import { chooseGuest, guestStore } from '../nix/guest.ts'
import { readHost, type Facts } from '../nix/host.ts'
import type { Subject, SubjectMaker } from './subject.ts'
import { comin } from './subject-comin.ts'
import { labAgents } from './subject-lab.ts'
import { nixosUpgrade } from './subject-nixos-upgrade.ts'
import { anyUnit } from './subject-unit.ts'

const makers: Record<UpgradeKind, SubjectMaker> = {
  lab: labAgents,
  'nixos-upgrade': nixosUpgrade,
  comin,
  unit: anyUnit,
}

/** Reads the value of `--subject`. @throws Failure (usage) for an unknown kind */
export function subjectKind(wanted: string | undefined): UpgradeKind | undefined {
  const kind = upgradeKinds.find((one) => one === wanted)
  if (wanted !== undefined && !kind)
    throw unknown('a subject', wanted, [...upgradeKinds], 'docs/subjects.md says what each is')
  return kind
}

/**
 * The subject of a run: the one that was asked for, else the one that `lab.toml` names, else the one that the hosts'
 * configuration shows.
 * @param wanted value of `--subject`
 * @param host a host of the flake; the others are assumed to be like it
 * @throws Failure (usage) for an unknown kind, or for a host without a known subject
 */
export async function theSubject(wanted: string | undefined, host: string): Promise<Subject> {
  const asked = subjectKind(wanted)
  const { branch, upgrade, units } = await labSettings()
  const kind = asked ?? upgrade.kind
  const own = kind === upgrade.kind ? upgrade.promises : null
  const held = (subject: Subject): Subject =>
    own ? { ...subject, promises: new Set(own) } : subject
  const guest = chooseGuest()
  const { facts } = await readHost(host, guest.attribute, guestStore(guest))
  const seen = recognised(facts)
  const found = kind ?? seen
  if (!found) {
    throw usage(
      `Cannot tell what upgrades \`${host}\`: it has neither the lab's agents nor system.autoUpgrade nor comin`,
      'lab.toml can say it: kind = "unit" and unit = "…" under [upgrade]',
    )
  }
  if (found === 'lab' && seen !== 'lab') {
    throw usage(
      `Cannot judge the lab's agents on \`${host}\`: it does not have them`,
      'Import nixosModules.autoUpgrade of the lab, or judge another: --subject nixos-upgrade or unit',
    )
  }
  if (found === 'comin' && !facts.comin) {
    throw usage(
      `Cannot judge comin on \`${host}\`: it does not have it`,
      'Import nixosModules.comin of its flake and set services.comin.enable',
    )
  }
  const made = makers[found]({
    branch,
    upgrade: {
      ...upgrade,
      unit: upgrade.unit ?? (units.upgrade === ownUnits.upgrade ? null : units.upgrade),
    },
    declared: facts.agents.upgrade,
    lacks: lacking(facts),
    here: seen === found || (found === 'comin' && facts.comin),
  })
  return held(made)
}

/** What the hosts with the lab's agents are set to do without. */
const lacking = ({
  clones,
  rollsBack,
  goldenEnable,
  syncs,
  buildsFirst,
}: Facts): Subject['lacks'] => ({
  ...(clones.flake === null && { clone: 'the hosts upgrade without a clone of their flake' }),
  ...(!rollsBack && { rollback: 'the hosts are set not to roll back where a check fails' }),
  ...(!goldenEnable && {
    golden: 'the hosts have no golden generation, or pin none by themselves',
  }),
  ...(!syncs && { sync: 'the hosts have no dotfile sync' }),
  ...(!buildsFirst && { preflight: 'the hosts build as part of the switch' }),
})

/** The kind of subject that a host's configuration shows. */
export function recognised(
  facts: Pick<Facts, 'autoUpgradeEnable' | 'systemAutoUpgrade' | 'comin'>,
): UpgradeKind | undefined {
  if (facts.autoUpgradeEnable) return 'lab'
  if (facts.systemAutoUpgrade) return 'nixos-upgrade'
  return facts.comin ? 'comin' : undefined
}
