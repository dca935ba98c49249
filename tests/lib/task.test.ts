import { afterEach, expect, test, vi } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { parse, type Task } from '../../lib/task.ts'

const task: Task = {
  name: 'demo',
  describe: 'Show a demo',
  usage: '[host..]',
  positionals: { host: { describe: 'Hosts', array: true } },
  options: {
    memory: { type: 'string', default: '2G', env: 'LAB_TEST_MEMORY', describe: 'Memory' },
    cpus: { type: 'number', env: 'LAB_TEST_CPUS', describe: 'CPUs' },
    json: { type: 'boolean', env: 'LAB_TEST_JSON', describe: 'Data' },
  },
  under: ['qemu-system-x86_64'],
  examples: [['just demo', 'Do it']],
  run: async () => undefined,
}

afterEach(() => vi.unstubAllEnvs())

test('host names stay text, even when they look like numbers', async () => {
  expect(await parse(task, ['1e3', '0x10'])).toMatchObject({ host: ['1e3', '0x10'] })
})

test('a variable sets a default and a flag beats it', async () => {
  vi.stubEnv('LAB_TEST_MEMORY', '3G')
  vi.stubEnv('LAB_TEST_CPUS', '4')
  vi.stubEnv('LAB_TEST_JSON', '0')
  expect(await parse(task, [])).toMatchObject({ memory: '3G', cpus: 4, json: false })
  expect(await parse(task, ['--memory', '1G'])).toMatchObject({ memory: '1G' })
})

test.each([
  ['an unknown flag', ['--nope'], 'Unknown argument: nope'],
  ['a flag given twice', ['--memory', '1G', '--memory', '2G'], '--memory is given twice'],
])('%s is a usage failure', async (_, argv, message) => {
  const thrown = await parse(task, argv).catch((error: unknown) => error)
  expect(thrown).toBeInstanceOf(Failure)
  expect(thrown).toMatchObject({ exit: 2, message: expect.stringContaining(message) })
})

test('a variable that is no number is a usage failure that names it', async () => {
  vi.stubEnv('LAB_TEST_CPUS', 'many')
  await expect(parse(task, [])).rejects.toThrow('Cannot read `many` in LAB_TEST_CPUS')
})

test('help ends with what runs under the hood', async () => {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  expect(await parse(task, ['--help'])).toBeUndefined()
  const text = write.mock.calls.map(([chunk]) => String(chunk)).join('')
  write.mockRestore()
  expect(text).toMatch(
    /Show a demo[^]*just demo {2}Do it[^]*Under the hood:\n {2}qemu-system-x86_64\n$/,
  )
})
