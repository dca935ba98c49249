/** Commands that tasks suggest to type next. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, onTestFinished, test, vi } from 'vitest'
import { printUpgraded } from '../../tasks/upgrade-test-vm.ts'
import { makeLab } from '../lab.ts'

afterEach(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})

test('after a failed upgrade the hint names the journal of the configured unit', async () => {
  vi.stubEnv('LAB_UPGRADE_UNIT', 'my-upgrade')
  const said: string[] = []
  vi.spyOn(console, 'log').mockImplementation((line: string) => void said.push(line))
  const ended = { outcome: 'failed', reason: '', held: false, seconds: 1, host: 'sorrow' }
  const booted = { generation: '1', toplevel: '/nix/store/x', golden: '', lastFailed: '' }
  expect(await printUpgraded([{ ...ended, ...booted }], false)).toBe(1)
  expect(said.at(-1)).toBe('what it said: just logs sorrow my-upgrade')
})

test('the hint for pushing dotfiles appears only if they are a git repository', async () => {
  const lab = makeLab()
  onTestFinished(lab.remove)
  const dotfiles = join(lab.dir, 'dotfiles')
  mkdirSync(dotfiles)
  writeFileSync(join(dotfiles, 'dot_profile'), '')
  lab.env['LAB_DOTFILES'] = dotfiles
  const plain = await lab.task('publish', '--dotfiles')
  expect(plain).toMatchObject({ code: 0, stdout: expect.not.stringContaining('To push') })
  execFileSync('git', ['init', '-q', dotfiles])
  const { stdout } = await lab.task('publish', '--dotfiles')
  const remote = join(lab.env['LAB_HOME']!, 'srv/.lab/dotfiles.git')
  expect(stdout).toContain(`To push there yourself: git -C ${dotfiles} remote add lab ${remote}\n`)
})
