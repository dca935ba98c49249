import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { makeLab, type Lab } from '../lab.ts'
import { openTerminal, sizes, type Terminal } from '../terminal/terminal.ts'

let lab: Lab
let terminal: Terminal
beforeAll(() => {
  lab = makeLab()
})
afterAll(() => lab.remove())
beforeEach(async () => {
  const { CI: _none, ...env } = lab.env
  terminal = await openTerminal(sizes[0]!, env)
})

const count = (text: string, part: string | RegExp): number => text.split(part).length - 1
const record = (host: string): string => join(lab.env['LAB_HOME']!, 'vms', host, 'vm.json')

/** Expects that no frame left a line behind when the next was drawn. */
function drawnOnce(all: string): void {
  for (const step of ['preflight', 'evaluate', 'base image']) {
    expect(count(all, new RegExp(`^  . ${step} `, 'm'))).toBe(1)
  }
  for (const step of ['build', 'wait for SSH', 'verify']) {
    expect(count(all, new RegExp(`^  . ${step} `, 'm'))).toBe(2)
  }
}

test('the first run shows every step, the table and the ssh lines, each once', async () => {
  expect(await terminal.runs('npx just lab', 600)).toBe(0)
  const all = terminal.all()
  drawnOnce(all)
  expect(all).toMatch(/^ {2}✔ disk and identity \(\d+\.\d s\)$/m)
  expect(all).toMatch(/^ {4}SSH on 127\.0\.0\.1:\d+$/m)
  expect(all).toMatch(/^check +sorrow +torment$/m)
  expect(all).toMatch(/^\d+ held, 0 failed, \d+ n\/a$/m)
  expect(all).not.toMatch(/at most/)
})

test('the second run shows that all is there, and makes nothing', async () => {
  expect(await terminal.runs('npx just lab', 120)).toBe(0)
  const all = terminal.all()
  drawnOnce(all)
  expect(count(all, 'it has its disk')).toBe(2)
  expect(count(all, 'it runs already')).toBe(2)
  expect(all).toMatch(/^Everything was there already$/m)
})

test('Ctrl-C while a VM boots leaves it running and says so, and the same command continues', async () => {
  expect(await terminal.runs('npx just down torment', 120)).toBe(0)
  expect(terminal.screen()).toMatch(/^torment\n {2}✔ power off .*\n {4}stopped$/m)
  terminal.enter('clear; npx just deploy-test-vm torment')
  await terminal.shows(/wait for SSH.*\n {4}SSH on port \d+: [1-9]\d* s of at most \d+ s/, 120)
  terminal.type('\u0003')
  expect(await terminal.prompted(10)).toBeLessThan(2)
  // the terminal breaks a long line anywhere
  expect(terminal.screen().replaceAll('\n', '')).toContain(
    'deploy-vm: Cut short: sorrow and torment still run (just down ends that); the same command again goes on from here',
  )
  expect(terminal.cursorVisible()).toBe(true)
  expect(await terminal.stty()).toMatch(/ icanon .* echo /)
  expect(await terminal.runs('clear; npx just deploy-test-vm torment', 240)).toBe(0)
  expect(terminal.screen()).toContain('it runs already')
})

test('if one of two VMs cannot start, the other does, and the reason and the hint come last', async () => {
  expect(await terminal.runs('npx just down torment --now', 120)).toBe(0)
  const whole = readFileSync(record('torment'), 'utf8')
  writeFileSync(record('torment'), JSON.stringify({ ...JSON.parse(whole), layer: '/nowhere' }))
  expect(await terminal.runs('clear; npx just lab', 240)).toBe(3)
  writeFileSync(record('torment'), whole)
  const all = terminal.all()
  expect(all).toMatch(/^sorrow\n(?: .*\n)* {2}✔ wait for SSH/m)
  expect(all).toMatch(/^torment\n(?: .*\n)* {2}✖ start .*\n {4}wait for SSH$/m)
  expect(count(all, 'the image below its disk is gone')).toBe(1)
  expect(all).toMatch(
    /^pipelines\/up: Cannot start `torment`: .*\n(?:.*\n)? {2}hint: just deploy-test-vm torment --fresh[^\n]*\nexit 2: 3$/m,
  )
})

test('cases on both VMs show the running case, its waits and the total, and can be interrupted', async () => {
  const cases = 'auto-upgrade/syntax-error auto-upgrade/build-error auto-upgrade/untracked-file'
  terminal.enter(`clear; npx just gitops-test --case ${cases}`)
  await terminal.shows(/baseline \d+ s\n {4}.*: \d+ s of at most \d+ s/, 120)
  await terminal.shows(/^\d of 3, \d+ s, about \d+ (s|min) left$/m, 300)
  await terminal.shows(/^ {4}upgrade of \w+: [1-9]\d* s of at most \d+ s$/m, 60)
  const screen = terminal.screen()
  expect(count(screen, '❯')).toBe(2)
  expect(screen).toMatch(/^sorrow: 0 of \d$/m)
  terminal.type('\u0003')
  expect(await terminal.prompted(10)).toBeLessThan(2)
  expect(terminal.screen().replaceAll('\n', '')).toMatch(
    /Cut short: \d cases were run, report: .*report\.html; sorrow and torment still run \(just down ends that\); just gitops-test --resume carries on/,
  )
})

test('--resume continues the interrupted run, with one report', async () => {
  expect(await terminal.runs('clear; npx just gitops-test --resume', 400)).toBe(0)
  // the terminal breaks a long line anywhere
  const said = terminal.all().replaceAll('\n', '')
  expect(said).toMatch(/^Carrying on \S+-gitops: \d of 3 have a result/)
  expect(terminal.all()).toMatch(/^3 passed, 0 failed, 0 skipped$/m)
})

test('down powers off each VM', async () => {
  expect(await terminal.runs('npx just down', 120)).toBe(0)
  expect(count(terminal.screen(), /^ {2}✔ power off /m)).toBe(2)
})

test('a Debian mirror that does not answer is reported once, with a hint', async () => {
  const cache = mkdtempSync(join(tmpdir(), 'cache-'))
  const nowhere = `LAB_CACHE=${cache} LAB_DEBIAN_MIRROR=http://127.0.0.1:9/debian`
  expect(await terminal.runs(`${nowhere} npx just lab`, 120)).toBe(3)
  rmSync(cache, { recursive: true })
  expect(count(terminal.screen(), 'does not answer')).toBe(1)
  expect(terminal.screen()).toMatch(/^ {2}hint: LAB_DEBIAN_MIRROR names another mirror$/m)
})
