import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openTerminal, sizes, type Terminal } from './terminal.ts'

const [enter, ctrlC, ctrlD] = ['\r', '\u0003', '\u0004']

/**
 * A machine on which one package is missing: all commands but one, and an apt-get that records how it was
 * called.
 */
async function withoutMtools(columns = 80): Promise<{ terminal: Terminal; asked: () => string }> {
  const dir = mkdtempSync(join(tmpdir(), 'bin-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const bin = join(dir, 'bin')
  mkdirSync(bin)
  for (const from of process.env['PATH']!.split(':').filter((one) => existsSync(one))) {
    for (const name of readdirSync(from)) {
      if (!['mcopy', 'apt-get', 'sudo'].includes(name) && !existsSync(join(bin, name))) {
        try {
          symlinkSync(join(from, name), join(bin, name))
        } catch {
          // a link of this name that leads nowhere is already there
        }
      }
    }
  }
  const log = join(dir, 'asked')
  const script = `#!/bin/sh\necho "$@" >>${log}\n[ "$1" = update ] || sleep 30\n`
  writeFileSync(join(bin, 'apt-get'), script, { mode: 0o755 })
  writeFileSync(join(bin, 'sudo'), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 })
  const terminal = await openTerminal({ columns, rows: 24 }, { PATH: bin })
  return { terminal, asked: () => (existsSync(log) ? readFileSync(log, 'utf8') : '') }
}

const question = /Run this now\? \[y\/N\] \(Enter means no\)$/

async function ask(): Promise<Awaited<ReturnType<typeof withoutMtools>>> {
  const found = await withoutMtools()
  found.terminal.enter('clear; npx just lab; echo "ended with $?"')
  await found.terminal.shows(question)
  return found
}

test.each([
  ['n', `n${enter}`],
  ['Enter', enter],
  ['Ctrl-D', ctrlD],
  ['a word that is no yes', `yesterday${enter}`],
])(
  'if packages are missing and the answer is %s, nothing is installed, and the command is printed',
  async (_, keys) => {
    const { terminal, asked } = await ask()
    terminal.type(keys)
    await terminal.shows(/^ended with 3$/m)
    const screen = terminal.screen()
    expect(screen).toMatch(
      /^pipelines\/up: Cannot go on without mtools: nothing was installed\n {2}hint: (sudo )?apt-get install --yes --no-install-recommends mtools\nended with 3$/m,
    )
    expect(asked()).toBe('')
    expect(await terminal.stty()).toMatch(/ icanon .* echo /)
  },
)

test('if packages are missing and the answer is Ctrl-C, the prompt is back, and nothing is installed', async () => {
  const { terminal, asked } = await ask()
  terminal.type(ctrlC)
  expect(await terminal.prompted(10)).toBeLessThan(2)
  expect(terminal.screen()).toMatch(
    /^pipelines\/up: Cut short: no VM runs; the same command again/m,
  )
  expect(asked()).toBe('')
  expect(await terminal.stty()).toMatch(/ icanon .* echo /)
})

test('if packages are missing and the answer is y, they are installed, and Ctrl-C brings the prompt back', async () => {
  const { terminal, asked } = await ask()
  terminal.type(`y${enter}`)
  for (let tries = 0; tries < 100 && !asked().includes('install'); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  expect(asked()).toBe('update\ninstall --yes --no-install-recommends mtools\n')
  terminal.type(ctrlC)
  expect(await terminal.prompted(10)).toBeLessThan(2)
  expect(terminal.screen()).toMatch(/Cut short: apt-get may still run and ends/)
})

test('if packages are missing and there is no input, the command is printed', async () => {
  const { terminal, asked } = await withoutMtools()
  expect(await terminal.runs('npx just lab </dev/null')).toBe(3)
  expect(terminal.screen()).toMatch(/hint: (sudo )?apt-get install --yes/)
  expect(asked()).toBe('')
})

const vm = {
  ...{ host: 'sorrow', uuid: 'f3a8f9f0-0000-4000-8000-000000000000', slot: 1, guest: 'debian' },
  ...{ port: 2222, memory: 2 ** 31, cpus: 2, disk: 2 ** 34, user: 'rain' },
  ...{ toplevel: '/nix/store/x', layer: '/nowhere' },
}

test.each([
  ['y', `y${enter}`, true],
  ['n', `n${enter}`, false],
  ['Enter', enter, false],
  ['Ctrl-D', ctrlD, false],
  ['Ctrl-C', ctrlC, false],
])('destroy asks, and deletes the VM only for y: %s', async (_, keys, deleted) => {
  const home = mkdtempSync(join(tmpdir(), 'home-'))
  onTestFinished(() => rmSync(home, { recursive: true }))
  const dir = join(home, 'vms/sorrow')
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'vm.json'), JSON.stringify(vm))
  const terminal = await openTerminal(sizes[1]!, { LAB_HOME: home })
  terminal.enter('clear; npx just destroy-test-vm sorrow')
  await terminal.shows(/Delete sorrow and all in .*\? \[y\/N\] \(Enter means no\)$/)
  terminal.type(keys)
  await terminal.prompted()
  expect(existsSync(join(dir, 'vm.json'))).toBe(!deleted)
  expect(terminal.screen()).toMatch(
    keys === ctrlC
      ? /^destroy: Cut short: /m
      : deleted
        ? /^Deleted sorrow$/m
        : /^sorrow is kept\. To delete it: just destroy-test-vm sorrow --yes$/m,
  )
  expect(await terminal.stty()).toMatch(/ icanon .* echo /)
})
