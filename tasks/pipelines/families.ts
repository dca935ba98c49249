import { usage } from '../../lib/failure.ts'
import { unknown as unknownName } from '../../lib/nearest.ts'
import type { Family } from '../../lib/scenario/family.ts'
import { ownPromises } from '../../lib/scenario/own-promises.ts'

/** Every family of scenarios, by the name of its task. */
export const familyNames = [
  'auto-upgrade',
  'break-boot',
  'chaos-network',
  'concurrent-edits',
  'full-workflow',
  'promises',
]

/**
 * Families by name; without names, all that have cases.
 * @throws Failure (usage) for an unknown name
 */
export async function families(names: string[] = []): Promise<Family[]> {
  const unknown = names.find((name) => !familyNames.includes(name))
  if (unknown !== undefined) {
    throw unknownName('a family', unknown, familyNames, 'just gitops-test --list lists their cases')
  }
  // both runs of a repeated case would write to one place in the record
  const wanted = names.length > 0 ? [...new Set(names)] : familyNames
  const found = await Promise.all(
    wanted.map(async (name) => {
      if (name === 'promises') return ownPromises()
      const { family } = (await import(`../${name}.ts`)) as { family: Family }
      return family
    }),
  )
  // a flake may have no promises of its own, unless they were asked for
  const empty = found.filter(({ cases }) => cases.length === 0)
  if (empty.length > 0 && names.length > 0) {
    throw usage(
      'Cannot find a promise of your own',
      'docs/promises.md shows how to write one in lab.toml',
    )
  }
  return found.filter((one) => !empty.includes(one))
}
