import { expect, test } from 'vitest'
import { jobsFor, load, readJobs, type Room } from '../../../lib/scenario/jobs.ts'

const gib = 1024 ** 3
const room = (more: Partial<Room>): Room => ({
  ...{ vms: 2, memory: 4 * gib, most: 100, accelerator: 'kvm', cores: 16, available: 64 * gib },
  ...more,
})

test.each<[number, string, Partial<Room>]>([
  [1, 'two emulated cores', { accelerator: 'tcg', cores: 2 }],
  [1, 'one core', { cores: 1 }],
  [1, 'two cores with KVM', { cores: 2 }],
  [8, 'sixteen cores with KVM', {}],
  [4, 'the same without KVM', { accelerator: 'tcg' }],
  [16, 'cases of one host alone', { vms: 1, memory: 2 * gib }],
  [3, 'memory for two copies', { available: 10 * gib }],
  [1, 'memory for none', { available: 4 * gib }],
  [1, 'less than none', { available: -gib }],
  [5, 'work for five', { most: 5 }],
])('--jobs auto is %i for %s', (jobs, _, more) => {
  expect(jobsFor('auto', room(more))).toBe(jobs)
})

test('a given number of jobs is capped at the work there is, and refused if memory does not suffice', () => {
  expect(jobsFor(4, room({ cores: 2, accelerator: 'tcg' }))).toBe(4)
  expect(jobsFor(4, room({ most: 3 }))).toBe(3)
  const emulated = room({ accelerator: 'tcg', available: 8 * gib })
  expect(() => jobsFor(4, emulated)).toThrow(
    'Cannot run 4 jobs: the copies want 15.0 GiB of memory, 8.0 GiB are available',
  )
})

test('time limits grow with the VMs per core', () => {
  expect([load(2, 2), load(4, 2), load(8, 2), load(2, 1), load(4, 16)]).toEqual([1, 2, 4, 2, 1])
})

test('--jobs accepts a number or auto', () => {
  expect([readJobs(undefined), readJobs('1'), readJobs('12'), readJobs('auto')]).toEqual([
    undefined,
    1,
    12,
    'auto',
  ])
  for (const text of ['0', '-1', '', 'two', '1.5', '2/4', '100', 'AUTO']) {
    expect(() => readJobs(text)).toThrow(`Cannot read \`${text}\` as a number of jobs`)
  }
})
