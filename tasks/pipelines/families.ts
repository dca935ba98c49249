import { unknown as unknownName } from '../../lib/nearest.ts'
import type { Family } from '../../lib/scenario/family.ts'

/** Every family of scenarios, by the name of its task. */
export const familyNames = [
  'auto-upgrade',
  'break-boot',
  'chaos-network',
  'concurrent-edits',
  'full-workflow',
]

/**
 * Families by name; all of them without any.
 * @throws Failure (usage) for a name that none has
 */
export async function families(names: string[] = []): Promise<Family[]> {
  const unknown = names.find((name) => !familyNames.includes(name))
  if (unknown !== undefined) {
    throw unknownName('a family', unknown, familyNames, 'just gitops-test --list lists their cases')
  }
  const wanted = names.length > 0 ? names : familyNames
  return Promise.all(
    wanted.map(async (name) => {
      const { family } = (await import(`../${name}.ts`)) as { family: Family }
      return family
    }),
  )
}
