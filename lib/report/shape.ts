import type { Plan } from './plan.ts'
import type { Recorded } from './record.ts'
import type { CaseResult } from './result.ts'

// a record may come from another machine or another version of the lab, or have been truncated in transit

type Fields = Record<string, unknown>

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isString = (value: unknown): value is string => typeof value === 'string'
const areStrings = (value: unknown): boolean => Array.isArray(value) && value.every(isString)
const areRows = (value: unknown): value is Fields[] =>
  Array.isArray(value) &&
  value.every(
    (row) => isObject(row) && ['name', 'expected', 'found'].every((key) => isString(row[key])),
  )
const isAbsentOr = (value: unknown, is: (value: unknown) => boolean): boolean =>
  value === undefined || is(value)

/** Whether a value is a complete plan. */
export const isPlan = (value: unknown): value is Plan =>
  isObject(value) &&
  ['hosts', 'asked', 'cases'].every((key) => areStrings(value[key])) &&
  // a field missing in two plans would count as equal
  ['name', 'flake', 'dotfiles', 'lab', 'ground'].every((key) => isString(value[key])) &&
  typeof value['seed'] === 'number' &&
  isAbsentOr(value['subject'], isSubject) &&
  isAbsentOr(value['lanes'], areStrings) &&
  isAbsentOr(value['shard'], isShard) &&
  isAbsentOr(value['ended'], (ended) => isObject(ended) && areStrings(ended['troubles']))

const isSubject = (value: unknown): boolean =>
  isObject(value) && isString(value['title']) && areStrings(value['promises'])

/** Whether it is a shard that `--shard` accepts. */
function isShard(value: unknown): boolean {
  if (!isObject(value)) return false
  const { index, count } = value as { index: number; count: number }
  return (
    Number.isInteger(index) &&
    Number.isInteger(count) &&
    index >= 1 &&
    index <= count &&
    count < 10_000
  )
}

/** Whether a value is the result of a case, and its rows do not contradict its state. */
export const isResult = (value: unknown): value is CaseResult =>
  isObject(value) &&
  ['family', 'case', 'title', 'reason', 'replay'].every((key) => isString(value[key])) &&
  ['passed', 'failed', 'skipped', 'error'].includes(value['state'] as string) &&
  ['seconds', 'seed'].every((key) => typeof value[key] === 'number') &&
  areStrings(value['hosts']) &&
  areRows(value['checks']) &&
  areRows(value['oracle']) &&
  value['oracle'].every(
    ({ host, state }) => isString(host) && ['ok', 'failed', 'n/a'].includes(state as string),
  ) &&
  (value['state'] !== 'passed' ||
    (value['checks'].length > 0 &&
      value['checks'].every(({ held }) => held === true) &&
      value['oracle'].every(({ state }) => state !== 'failed'))) &&
  isAbsentOr(value['evidence'], isString)

/** Whether a value is an event of a run. */
export const isRecorded = (value: unknown): value is Recorded =>
  isObject(value) &&
  ['id', 't'].every((key) => typeof value[key] === 'number') &&
  ['kind', 'name', 'at'].every((key) => isString(value[key])) &&
  isAbsentOr(value['host'], isString) &&
  isAbsentOr(value['hosts'], areStrings)
