/** What a mutant does to a program, as the table counts it. */
export const kinds = [
  'statement',
  'condition',
  'guard',
  'comparison',
  'constant',
  'order',
  'branch',
  'timeout',
  'sync',
  'lock',
  'module',
] as const
export type Kind = (typeof kinds)[number]

/** A change of a text, by offsets in UTF-16 units. */
export interface Edit {
  kind: Kind
  from: number
  to: number
  instead: string
  /** The function or attribute that it is in. */
  within: string
  /** First and last line of what it changes, from 1. */
  lines: [number, number]
}
