import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Control } from './control.ts'
import { project } from '../settings.ts'

/**
 * Whether a control's pattern can match the name of some check of its family or of some row of the oracle. Names are
 * read from the sources. If part of a name is only known during a run, it is enough that the pattern contains one of
 * the name's fixed parts.
 */
export function canBeRed({ case: named, red }: Control): boolean {
  const own = join(project, 'tasks', `${named.split('/')[0]}.ts`)
  const shared = ['lib/scenario', 'lib/fault'].flatMap((dir) =>
    readdirSync(join(project, dir)).map((file) => join(project, dir, file)),
  )
  const names = [own, ...shared].flatMap((file) => checkNames(readFileSync(file, 'utf8')))
  // names are plain text, so undo the pattern's escapes
  const source = red.source.replaceAll(/\\([^\w])/g, '$1')
  const plain = names.filter((name) => !name.includes('${'))
  return names.some((name) => {
    const whole = name.replaceAll(hole, 'sorrow')
    if (red.test(whole) || red.test(`oracle sorrow ${whole}`)) return true
    if (whole === name) return false
    // the last part may be another name, passed as an argument
    const begun = name.replace(/\$\{[^}]*\}$/, '').replaceAll(hole, 'sorrow')
    if (name.endsWith('}') && plain.some((end) => red.test(begun + end))) return true
    const fixed = name.split(hole).map((part) => part.trim())
    return fixed.some((part) => part.length > 3 && source.includes(part))
  })
}

const hole = /\$\{[^}]*\}/g

/** The names of checks and rows in a source: the first text argument of the calls that make them. */
function checkNames(text: string): string[] {
  const made =
    /\b(?:check|must|name|row|nothingWrong|outcome|comes|rebooted)\(\s*(?:\w+,\s*)*(?:'([^'\n]+)'|`([^`]+)`)/g
  const handedOn = /\bname = \([^)]*\)[^=]*=>\s*(?:'([^'\n]+)'|`([^`]+)`)/g
  const field = /\bname(?: =|:)\s*(?:'([^'\n]+)'|`([^`]+)`)/g
  return [made, handedOn, field].flatMap((pattern) =>
    [...text.matchAll(pattern)].map(([, plain, template]) => plain ?? template!),
  )
}
