import type { Plan } from './plan.ts'
import type { Recorded } from './record.ts'
import type { CaseResult } from './result.ts'

// a record may come from another machine or another version of the lab, or have been cut short on its way

type Fields = Record<string, unknown>

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isString = (value: unknown): value is string => typeof value === 'string'
const areStrings = (value: unknown): boolean => Array.isArray(value) && value.every(isString)
const areObjects = (value: unknown): boolean => Array.isArray(value) && value.every(isObject)
const isAbsentOr = (value: unknown, is: (value: unknown) => boolean): boolean =>
  value === undefined || is(value)

/** Whether it says what a run was to do. */
export const isPlan = (value: unknown): value is Plan =>
  isObject(value) &&
  ['hosts', 'asked', 'cases'].every((key) => areStrings(value[key])) &&
  isAbsentOr(value['lanes'], areStrings) &&
  isAbsentOr(value['shard'], isShard) &&
  isAbsentOr(value['ended'], (ended) => isObject(ended) && areStrings(ended['troubles']))

/** As `--shard` takes it. */
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

/** Whether it says what a case came to. */
export const isResult = (value: unknown): value is CaseResult =>
  isObject(value) &&
  ['family', 'case', 'title', 'reason', 'replay'].every((key) => isString(value[key])) &&
  ['passed', 'failed', 'skipped', 'error'].includes(value['state'] as string) &&
  typeof value['seconds'] === 'number' &&
  areStrings(value['hosts']) &&
  areObjects(value['checks']) &&
  areObjects(value['oracle']) &&
  isAbsentOr(value['evidence'], isString)

/** Whether it says what happened in a run, and when. */
export const isRecorded = (value: unknown): value is Recorded =>
  isObject(value) &&
  ['id', 't'].every((key) => typeof value[key] === 'number') &&
  ['kind', 'name'].every((key) => isString(value[key])) &&
  isAbsentOr(value['host'], isString) &&
  isAbsentOr(value['hosts'], areStrings)
