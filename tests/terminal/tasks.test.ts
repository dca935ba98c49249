import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { copyFlake } from '../flake-copy.ts'
import { openTerminal, sizes } from './terminal.ts'

/** Every task that a user calls, as far as it gets without a VM; run again if the second run finds something. */
const calls: [command: string, shows: RegExp, first: number, second?: number][] = [
  ['just', /Break the GitOps setup in every way/, 0],
  ['just status', /^There is no VM\. just lab makes and verifies two$/m, 0],
  ['just down', /^There is no VM to stop$/m, 0],
  ['just verify-test-vms', /^verify: Cannot find any VM\n {2}hint: just lab makes two$/m, 3],
  ['just rebuild-test-vm sorrow', /^rebuild-test-vm: Cannot /m, 3],
  ['just ssh-test-vm sorrow', /^ssh: Cannot /m, 3],
  ['just console-test-vm sorrow', /^console: Cannot /m, 3],
  ['just destroy-test-vm sorrow', /^destroy: Cannot /m, 3],
  ['just deploy-test-vm sorrow --dry-run', /^ {4}would start the keeper/m, 0],
  ['just lab --dry-run', /^torment$/m, 0],
  ['just scaffold-host gloom', /gloom/, 0, 2],
  ['just add-to-flake gloom', /gloom/, 0, 0],
  ['just seal-secrets --help', /Give each VM an age key/, 0],
  ['just gitops-test --list', /^auto-upgrade +good-commit/m, 0],
  ['just break-boot --list', /^break-boot +panic/m, 0],
  ['just auto-upgrade --list', /^auto-upgrade +timer/m, 0],
  ['just concurrent-edits --list', /same-line/, 0],
  ['just full-workflow --list', /workflow/, 0],
  ['just chaos-network --list', /lan-cut/, 0],
  ['just prove --list', /known-bad/, 0],
  ['just gitops-test --nonsense', /^pipelines\/gitops: .*nonsense/m, 2],
]

test.each(sizes)(
  'every task leaves the terminal intact, at $columns x $rows',
  { timeout: 300_000 },
  async (size) => {
    const dir = mkdtempSync(join(tmpdir(), 'flake-'))
    onTestFinished(() => rmSync(dir, { recursive: true }))
    const terminal = await openTerminal(size, { LAB_FLAKE: copyFlake(dir), LAB_ACCEL: 'tcg' })
    const before = await terminal.stty()
    const found: Record<string, unknown> = {}
    const wanted: Record<string, unknown> = {}
    for (const [command, shows, ...codes] of calls) {
      for (const [run, code] of codes.entries()) {
        const name = `${command} (${run + 1})`
        const from = terminal.all().length
        const ended = await terminal.runs(`PATH=$PWD/node_modules/.bin:$PATH ${command}`)
        const all = terminal.all().slice(from)
        const seen = run > 0 || shows.test(all)
        found[name] = { ended, seen: seen || all, bug: /This is a bug|^ {4}at /m.test(all) }
        wanted[name] = { ended: code, seen: true, bug: false }
      }
    }
    expect(found).toEqual(wanted)
    expect(terminal.cursorVisible()).toBe(true)
    expect(await terminal.stty()).toBe(before)
  },
)
