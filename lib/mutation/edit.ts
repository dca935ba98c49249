/** Kinds of mutants, as the table counts them. */
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

/** A replacement in a text, by offsets in UTF-16 units. */
export interface Edit {
  kind: Kind
  from: number
  to: number
  instead: string
  /** The function or attribute path that contains it. */
  within: string
  /** First and last line of the changed text, counted from 1. */
  lines: [number, number]
}
