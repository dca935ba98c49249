import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Control } from './control.ts'
import { project } from '../settings.ts'

/**
 * Whether some check of a control's family, or some row of the oracle, can have a name that its pattern
 * matches. Names are read from the sources. Where a name has a part that is only known in a run, it is
 * enough that the pattern has one of the name's fixed parts.
 */
export function canBeRed({ case: named, red }: Control): boolean {
  const own = join(project, 'tasks', `${named.split('/')[0]}.ts`)
  const shared = ['lib/scenario', 'lib/fault'].flatMap((dir) =>
    readdirSync(join(project, dir)).map((file) => join(project, dir, file)),
  )
  const names = [own, ...shared].flatMap((file) => checkNames(readFileSync(file, 'utf8')))
  // as a pattern writes them
  const source = red.source.replaceAll(/\\([^\w])/g, '$1')
  const plain = names.filter((name) => !name.includes('${'))
  return names.some((name) => {
    const whole = name.replaceAll(hole, 'sorrow')
    if (red.test(whole) || red.test(`oracle sorrow ${whole}`)) return true
    if (whole === name) return false
    // a part may be a name that is handed on
    const begun = name.replace(/\$\{[^}]*\}$/, '').replaceAll(hole, 'sorrow')
    if (name.endsWith('}') && plain.some((end) => red.test(begun + end))) return true
    const fixed = name.split(hole).map((part) => part.trim())
    return fixed.some((part) => part.length > 3 && source.includes(part))
  })
}

const hole = /\$\{[^}]*\}/g

/** The names that a source gives to checks and rows: what stands first in a call that makes one. */
function checkNames(text: string): string[] {
  const made =
    /\b(?:check|must|name|row|nothingWrong|outcome|comes|rebooted)\(\s*(?:\w+,\s*)*(?:'([^'\n]+)'|`([^`]+)`)/g
  const handedOn = /\bname = \([^)]*\)[^=]*=>\s*(?:'([^'\n]+)'|`([^`]+)`)/g
  const field = /\bname(?: =|:)\s*(?:'([^'\n]+)'|`([^`]+)`)/g
  return [made, handedOn, field].flatMap((pattern) =>
    [...text.matchAll(pattern)].map(([, plain, template]) => plain ?? template!),
  )
}
