import { ownUnits } from '../lab-settings.ts'
import { allPromises } from './promise.ts'
import type { Subject, SubjectMaker } from './subject.ts'

/** The lab's own agents: nix-local-upgrade, the golden generation and the dotfile sync. */
export const labSubject: Subject = {
  kind: 'lab',
  title: "the lab's agents",
  unit: ownUnits.upgrade,
  promises: new Set(allPromises),
  options: 'myModules.services.autoUpgrade',
  status: '/var/lib/nix-local-upgrade/status.json',
}

/** The lab's agents on hosts that they upgrade from a clone, or without one. */
export const labAgents: SubjectMaker = ({ fromClone }) =>
  fromClone ? labSubject : { ...labSubject, withoutClone: true }
