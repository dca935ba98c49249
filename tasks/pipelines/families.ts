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
 * Families by name; all that have cases without any.
 * @throws Failure (usage) for a name that none has
 */
export async function families(names: string[] = []): Promise<Family[]> {
  const unknown = names.find((name) => !familyNames.includes(name))
  if (unknown !== undefined) {
    throw unknownName('a family', unknown, familyNames, 'just gitops-test --list lists their cases')
  }
  // a case that ran twice would have one place for both
  const wanted = names.length > 0 ? [...new Set(names)] : familyNames
  const found = await Promise.all(
    wanted.map(async (name) => {
      if (name === 'promises') return ownPromises()
      const { family } = (await import(`../${name}.ts`)) as { family: Family }
      return family
    }),
  )
  // of one's own there need be none, unless they are asked for
  const empty = found.filter(({ cases }) => cases.length === 0)
  if (empty.length > 0 && names.length > 0) {
    throw usage('Cannot find a promise of your own', 'docs/promises.md shows how lab.toml says one')
  }
  return found.filter((one) => !empty.includes(one))
}
