import { usage } from '../failure.ts'
import type { Subject, SubjectMaker } from './subject.ts'

/**
 * Any unit that upgrades the host when it is started, and has finished when it ends, such as a timer's script. Only
 * `lab.toml` can say what it promises.
 */
export const anyUnit: SubjectMaker = ({ upgrade, declared }): Subject => {
  if (upgrade.unit === null) {
    throw usage('Cannot judge a unit without its name', 'Set `unit` under [upgrade] in lab.toml')
  }
  if (!declared.present) {
    throw usage(
      `Cannot judge \`${upgrade.unit}.service\`: the host has no such unit`,
      '`unit` under [upgrade] in lab.toml names what upgrades it',
    )
  }
  return {
    kind: 'unit',
    title: `${upgrade.unit}.service`,
    unit: upgrade.unit,
    promises: new Set(upgrade.promises ?? ['deploy', 'refuse', 'offline', 'whole']),
    // upgrades run only when a case starts one
    module: declared.timer
      ? `{ lib, ... }: { systemd.timers."${upgrade.unit}".timerConfig = lib.mkForce { OnCalendar = "yearly"; }; }\n`
      : undefined,
    fetches: upgrade.remote ?? undefined,
  }
}
