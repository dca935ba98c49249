import { spawnSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { findCommand } from '../../lib/find-command.ts'
import { packages } from '../../lib/packages.ts'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { scenario, type Family } from '../../lib/scenario/scenario.ts'
import { parse, type Task } from '../../lib/task.ts'

interface Recipe {
  doc: string | null
  body: unknown[][]
  private: boolean
  attributes: (string | object)[]
}

const just = join(project, 'node_modules/.bin/just')
const dump = await run(just, ['--dump', '--dump-format', 'json'], { cwd: project })
const { recipes, settings } = JSON.parse(dump.stdout) as {
  recipes: Record<string, Recipe>
  settings: { no_exit_message: boolean }
}

/** The recipe that runs a task file, by the file's place below `tasks/`. */
const byTask = new Map(
  Object.entries(recipes).flatMap(([name, recipe]) => {
    // a private recipe is part of another one and may run a task with different flags
    if (recipe.private) return []
    const [, file] = /(?:,"|tasks\/)([\w/-]+\.ts) /.exec(JSON.stringify(recipe.body)) ?? []
    return file && !file.startsWith('bench/') ? [[file, { name, ...recipe }] as const] : []
  }),
)
const tasks = readdirSync(join(project, 'tasks'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  // a file that cannot be started is a part of others
  .filter((file) => readFileSync(join(project, 'tasks', file), 'utf8').includes('(import.meta,'))
  .toSorted()

test('every recipe of a task runs an existing file', () => {
  expect(byTask.size).toBeGreaterThan(10)
  expect(tasks).toEqual(expect.arrayContaining([...byTask.keys()]))
})

/** A task as its file declares it. */
async function load(file: string): Promise<Task> {
  const loaded = (await import(join(project, 'tasks', file))) as Task & {
    task?: Task
    family?: Family
  }
  return loaded.task ?? (loaded.family ? scenario(loaded.family) : loaded)
}

test.each(tasks)('%s has a recipe whose description is that of the task', async (file) => {
  const task = await load(file)
  const recipe = byTask.get(file)
  expect(recipe?.doc).toBe(task.describe)
  expect(task.under.length).toBeGreaterThan(0)
  expect(task.examples.length).toBeGreaterThan(1)
})

test.each(tasks)(
  '%s has its file name in its help, and its examples call existing recipes or tasks',
  async (file) => {
    const { name, examples } = await load(file)
    expect(`${name}.ts`).toBe(file)
    for (const [command] of examples) {
      const words = command.split(' ').filter((word) => word !== 'npx')
      const [program, what] = words
      if (program === 'just') expect(Object.keys(recipes), command).toContain(what)
      else
        expect([program, tasks.map((one) => `tasks/${one}`)]).toEqual([
          'tsx',
          expect.arrayContaining([what]),
        ])
    }
  },
)

/** Texts that are not numbers, and numbers that are too large for any flag. */
const noNumbers = ['x', '-1000000', '1.5', '', ' ', '1e99', '1e1', '0x10', 'NaN', '9'.repeat(30)]

test.each(tasks)('%s refuses an invalid number or a missing value in one line', async (file) => {
  const task = await load(file)
  const refusal = async (...argv: string[]): Promise<unknown> => {
    const words = (task.usage?.match(/<\w+/g) ?? []).map(() => 'sorrow')
    return await parse(task, [...words, ...argv]).catch((thrown: unknown) => thrown)
  }
  for (const [key, { type, env }] of Object.entries(task.options ?? {})) {
    const flag = `--${key}`
    if (type === 'boolean') {
      expect(await refusal(`${flag}=1`)).toMatchObject({ exit: 2 })
      continue
    }
    expect(await refusal(flag)).toMatchObject({
      exit: 2,
      message: expect.stringMatching(/^Cannot read --[\w-]+ without (a value|the name of a host)$/),
    })
    for (const text of type === 'number' ? noNumbers : []) {
      for (const argv of [[flag, text], [`${flag}=${text}`]]) {
        const message =
          text === ''
            ? `Cannot read ${flag} without a value`
            : `Cannot take \`${text}\` for ${flag}`
        expect(await refusal(...argv), argv.join(' ')).toMatchObject({
          exit: 2,
          message,
          detail: { hint: expect.stringMatching(/^Write a whole number from|--help$/) },
        })
      }
      if (!env || text === '') continue
      vi.stubEnv(env, text)
      expect(await refusal()).toMatchObject({ exit: 2, message: expect.stringContaining(env) })
      vi.unstubAllEnvs()
    }
  }
})

test.each(tasks)('%s can parse each of its own examples', async (file) => {
  const task = await load(file)
  const own = byTask.get(file)?.name
  for (const [command] of task.examples) {
    const [program, what, ...words] = command.split(' ').filter((word) => word !== 'npx')
    const mine = program === 'just' ? what === own : what === `tasks/${file}`
    if (mine) expect(await parse(task, words), command).toBeDefined()
  }
})

test.each(tasks)('%s accepts hosts by position, --host and --vm', async (file) => {
  const task = await load(file)
  const keys = [...Object.keys(task.options ?? {}), ...Object.keys(task.positionals ?? {})]
  expect(keys).not.toContain('vm')
  if (!keys.includes('host')) return
  const [named] = /^<host>|^\[host\.\.\]|^<host\.\.>/.exec(task.usage ?? '') ?? []
  const ways = [['--host', 'sorrow'], ['--host=sorrow'], ['--vm', 'sorrow'], ['--vm=sorrow']]
  for (const words of named ? [['sorrow'], ...ways] : ways) {
    const { host } = (await parse(task, words))!
    expect([host].flat(), words.join(' ')).toEqual(['sorrow'])
  }
})

test('just adds no message to that of a task, and keeps its exit code', async () => {
  const { code, stderr } = await run(just, ['verify-test-vms', '../etc'], {
    cwd: project,
    allow: [2],
  })
  expect({ code, lines: stderr.trim().split('\n').length }).toEqual({ code: 2, lines: 2 })
  expect(stderr).not.toContain('recipe')
  // just names a tool that fails without a message
  expect(settings.no_exit_message).toBe(true)
  const tools = Object.entries(recipes).filter(([, { body }]) =>
    /^\[\["\w/.test(JSON.stringify(body)),
  )
  expect(tools.map(([name]) => name)).toEqual(expect.arrayContaining(['lint', 'types', 'unit']))
  for (const [name, { attributes }] of tools) expect(attributes, name).toContain('exit-message')
})

test('the nix develop shell has the packages of packages.debian that nixpkgs has', () => {
  const text = readFileSync(join(project, 'nix/shell.nix'), 'utf8')
  const calledOtherwise: Record<string, string> = {
    'busybox-static': 'busybox',
    fdisk: 'util-linux',
    'nix-bin': 'nix',
    'openssh-client': 'openssh',
    ovmf: 'OVMF',
    'qemu-system-x86': 'qemu_kvm',
    'qemu-utils': 'qemu_kvm',
    'xz-utils': 'xz',
  }
  // NixOS itself provides these, as it must for a setuid program
  const ofNixos = ['uidmap', 'ca-certificates']
  for (const { name, forTests } of packages()) {
    if (forTests || ofNixos.includes(name)) continue
    expect(text).toMatch(new RegExp(`\\b${calledOtherwise[name] ?? name}\\b`))
  }
})

test.each([
  ['debian', 'would install mmdebstrap\n'],
  ['nixos', ''],
])('just lab with %s guests asks only for packages that these need', (guest, installed) => {
  const scratch = mkdtempSync(join(tmpdir(), 'bin-'))
  const bin = join(scratch, 'bin')
  mkdirSync(bin)
  const have = packages().flatMap(({ brings }) => findCommand(brings) ?? [])
  for (const path of [process.execPath, ...['sh', 'bash', 'setpriv'].map(findCommand), ...have])
    if (basename(path!) !== 'mmdebstrap') symlinkSync(path!, join(bin, basename(path!)))
  const hosts = '{ web = { }; }'
  const flake = `{ outputs = _: { labConfigurations = ${hosts}; nixosConfigurations = ${hosts}; }; }`
  writeFileSync(join(scratch, 'flake.nix'), flake)
  const env = { PATH: bin, LAB_GUEST: guest, LAB_FLAKE: scratch, LAB_HOME: scratch }
  try {
    const { status, stdout, stderr } = spawnSync(just, ['lab', '--dry-run'], {
      cwd: project,
      env: { ...process.env, ...env, LAB_ENV_FILE: '' },
      encoding: 'utf8',
    })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(/^would install .*\n/m.exec(stdout)?.[0] ?? '').toBe(installed)
  } finally {
    rmSync(scratch, { recursive: true })
  }
})

test('just ok names missing packages and the command that installs them', () => {
  const bin = mkdtempSync(join(tmpdir(), 'bin-'))
  const have = packages().flatMap(({ brings }) => findCommand(brings) ?? [])
  for (const path of [process.execPath, findCommand('sh')!, findCommand('apt-get')!, ...have]) {
    if (basename(path) !== 'shellcheck') symlinkSync(path, join(bin, basename(path)))
  }
  try {
    const env = { ...process.env, PATH: bin }
    const { status, stderr } = spawnSync(just, ['ok'], { cwd: project, env, encoding: 'utf8' })
    expect(status).toBe(3)
    expect(stderr).toMatch(/^doctor: Cannot go on without `shellcheck` \(.*\)$/m)
    expect(stderr).toMatch(/^ {2}hint: (sudo )?apt-get install .* shellcheck, or just doctor/m)
    expect(stderr).not.toContain('recipe')
  } finally {
    rmSync(bin, { recursive: true })
  }
})
