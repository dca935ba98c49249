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

/** The lab's agents as the hosts are set to use them. */
export const labAgents: SubjectMaker = ({ lacks }) => ({ ...labSubject, lacks })
