import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, onTestFinished, test, vi } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { parse, type Task } from '../../lib/task.ts'

const task: Task = {
  name: 'demo',
  describe: 'Show a demo',
  usage: '[host..]',
  positionals: { host: { describe: 'Hosts', array: true } },
  options: {
    memory: { type: 'string', default: '2G', env: 'LAB_TEST_MEMORY', describe: 'Memory' },
    cpus: { type: 'number', least: 1, most: 64, env: 'LAB_TEST_CPUS', describe: 'CPUs' },
    case: { type: 'string', array: true, describe: 'Cases' },
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

test('a variable sets a default, and a flag overrides it', async () => {
  vi.stubEnv('LAB_TEST_MEMORY', '3G')
  vi.stubEnv('LAB_TEST_CPUS', '4')
  vi.stubEnv('LAB_TEST_JSON', '0')
  expect(await parse(task, [])).toMatchObject({ memory: '3G', cpus: 4, json: false })
  expect(await parse(task, ['--memory', '1G'])).toMatchObject({ memory: '1G' })
})

test.each([
  ['an unknown flag', ['--nope'], 'Unknown argument: nope'],
  ['an unknown flag with a no', ['--no-such'], 'Unknown argument: no-such'],
  ['an unknown flag with a hyphen', ['--dry-rnu'], 'Unknown argument: dry-rnu'],
  ['an unknown short flag', ['--json', '--cpus', '2', '-x=1'], 'Unknown argument: x'],
  ['a flag for hosts without one', ['--host'], 'Cannot read --host without the name of a host'],
  ['the same before another flag', ['--vm', '--json'], 'Cannot read --vm without the name'],
  ['the same with nothing in it', ['--host='], 'Cannot read --host= without the name'],
  ['a flag without a value', ['--memory'], 'Cannot read --memory without a value'],
  ['the same before another flag', ['--cpus', '--json'], 'Cannot read --cpus without a value'],
  ['a flag with nothing in it', ['--memory='], 'Cannot read --memory without a value'],
  ['a list of nothing', ['--case'], 'Cannot read --case without a value'],
  ['a list with nothing in it', ['--case', 'one', '--case='], 'Cannot read --case without a value'],
  ['a switch set to a word', ['--json=yes'], 'Cannot read `yes` in --json'],
  ['a switch set to nothing', ['--json='], 'Cannot read `` in --json'],
  ['a flag turned off by no', ['--no-json'], 'Unknown argument: no-json'],
  ['a flag with a dot', ['--memory.size=1G'], 'Unknown argument: memory.size'],
  ['a pasted dash', ['\u2014case', 'one'], 'begins with a dash that is not a hyphen'],
  ['a flag given twice', ['--memory', '1G', '--memory', '2G'], '--memory is given twice'],
])('%s is a usage failure', async (_, argv, message) => {
  const thrown = await parse(task, argv).catch((error: unknown) => error)
  expect(thrown).toBeInstanceOf(Failure)
  expect(thrown).toMatchObject({ exit: 2, message: expect.stringContaining(message) })
})

test.each([
  ['--memry', 'The nearest is --memory; tsx tasks/demo.ts --help lists all flags'],
  ['--cpu=4', 'The nearest is --cpus; tsx tasks/demo.ts --help lists all flags'],
  [
    '--nope',
    'There are --memory, --cpus, --case, --json; tsx tasks/demo.ts --help lists all flags',
  ],
])('%s is answered with the nearest flag', async (flag, hint) => {
  const thrown = await parse(task, [flag]).catch((error: unknown) => error)
  expect(thrown).toMatchObject({ detail: { hint } })
})

test('messages do not depend on the machine’s language', async () => {
  vi.stubEnv('LC_ALL', 'de_DE.UTF-8')
  await expect(parse(task, ['--nope'])).rejects.toThrow('Unknown argument: nope')
})

test.each([
  [['sorrow', 'torment', '--json']],
  [['--host', 'sorrow', '--json', '--host', 'torment']],
  [['--host=sorrow', '--host=torment', '--json']],
  [['--vm', 'sorrow', 'torment', '--json']],
  [['--json', '--vm=sorrow', '--', 'torment']],
])('hosts are given by position, --host or --vm: %j', async (argv) => {
  expect(await parse(task, argv)).toMatchObject({ host: ['sorrow', 'torment'], json: true })
})

test('a task with other positionals takes hosts by --host or --vm', async () => {
  const { positionals: _, ...rest } = task
  const other: Task = {
    ...rest,
    usage: '[family..]',
    positionals: { family: { describe: 'Families', array: true } },
    options: { ...task.options, host: { type: 'string', array: true, describe: 'VMs' } },
  }
  for (const flag of ['--host', '--vm']) {
    const argv = ['break-boot', flag, 'sorrow', `${flag}=torment`]
    expect(await parse(other, argv)).toMatchObject({
      family: ['break-boot'],
      host: ['sorrow', 'torment'],
    })
  }
})

test('arguments after -- are passed on unparsed', async () => {
  const ssh: Task = {
    ...task,
    usage: '<host> [command..]',
    positionals: { host: { describe: 'VM' }, command: { describe: 'Command', array: true } },
  }
  expect(await parse(ssh, ['uptime', '--host', 'sorrow', '--', '--vm', 'x'])).toMatchObject({
    host: 'sorrow',
    command: ['uptime'],
    '--': ['--vm', 'x'],
  })
})

test('an argument that begins with a hyphen and a digit is a value, not a flag', async () => {
  expect(await parse(task, ['--memory', '-1G', '--json=true'])).toMatchObject({
    memory: '-1G',
    json: true,
  })
})

test('help prints a long example on one line, so that it can be copied', async () => {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  const command = 'tsx tasks/demo.ts delay sorrow --link uplink --ms 100'
  const meaning = 'All cases first, which takes as long as all the tests on VMs that there are'
  await parse({ ...task, examples: [[command, meaning]] }, ['--help'])
  const text = write.mock.calls.map(([chunk]) => String(chunk)).join('')
  write.mockRestore()
  expect(text).toContain(`\nExamples:\n  ${command}\n    ${meaning}\n`)
})

test('help fits a narrow terminal, but does not wrap commands', async () => {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  const { columns } = process.stdout
  process.stdout.columns = 40
  const command = 'tsx tasks/demo.ts delay sorrow --link uplink --ms 100'
  await parse({ ...task, examples: [[command, 'A delay']] }, ['--help'])
  process.stdout.columns = columns
  const text = write.mock.calls.map(([chunk]) => String(chunk)).join('')
  write.mockRestore()
  const [table = '', rest] = text.split('Examples:')
  expect(Math.max(...table.split('\n').map((line) => line.length))).toBeLessThanOrEqual(40)
  expect(rest).toContain(`\n  ${command}\n`)
})

test('help shows the type of a number option', async () => {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  await parse(task, ['--help'])
  const text = write.mock.calls.map(([chunk]) => String(chunk)).join('')
  write.mockRestore()
  expect(text).toMatch(/--cpus .*\[number\]/)
})

test('a variable that is not a valid number is a usage failure that names it', async () => {
  for (const text of ['many', '0', '65', '2.5', '1e1']) {
    vi.stubEnv('LAB_TEST_CPUS', text)
    await expect(parse(task, [])).rejects.toMatchObject({
      exit: 2,
      message: `Cannot take \`${text}\` for LAB_TEST_CPUS`,
      detail: { hint: 'Write a whole number from 1 to 64' },
    })
  }
})

test('help ends with what runs under the hood', async () => {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  expect(await parse(task, ['--help'])).toBeUndefined()
  const text = write.mock.calls.map(([chunk]) => String(chunk)).join('')
  write.mockRestore()
  expect(text).toMatch(
    /Show a demo[^]*just demo\n {4}Do it[^]*Under the hood:\n {2}qemu-system-x86_64\n$/,
  )
})

test.each([
  ['named as a flag', ['--thing', 'x'], 'Unknown argument: thing'],
  ['missing', [], 'Cannot begin: an argument is missing'],
])('an argument that is %s is refused with the correct usage', async (_, argv, message) => {
  const things = { ...task, usage: '<thing..>', positionals: { thing: { array: true } } }
  const thrown = await parse(things, argv).catch((error: unknown) => error)
  const hint = expect.stringContaining('tsx tasks/demo.ts <thing..>')
  expect(thrown).toMatchObject({ exit: 2, message, detail: { hint } })
})

/** Writes a task to a separate file, from which it can be started. */
function written(text: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'task-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const file = join(dir, 'written.mts')
  writeFileSync(
    file,
    `import { main } from '${project}/lib/task.ts'
await main(import.meta, { name: 'written', describe: '', under: [], examples: [], ${text} })`,
  )
  return file
}

test('a Node.js deprecation warning is not shown to users, other warnings are', async () => {
  const file = written(`run: async () => {
  process.emitWarning('old-fashioned', 'DeprecationWarning')
  process.emitWarning('worth a look')
}`)
  const { stderr } = await run(process.execPath, ['--import', 'tsx', file], { cwd: project })
  expect(stderr).toContain('worth a look')
  expect(stderr).not.toContain('old-fashioned')
})

test.each([
  ['goes on, as its exit code is what is asked for', '', 1],
  ['ends with it where it shows what comes', 'endsWithReader: true,', 0],
])('a task whose reader has closed the pipe %s', async (_, more, code) => {
  const file = written(`${more} run: async () => {
  for (let line = 0; line < 30; line++) {
    console.log('x'.repeat(10_000))
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return 1
}`)
  const script = 'set -o pipefail; node --import tsx "$1" | head -c 1 >/dev/null'
  const ended = await run('bash', ['-c', script, 'bash', file], { cwd: project, allow: [1] })
  expect(ended).toMatchObject({ code, stderr: '' })
})
