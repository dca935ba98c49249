import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { run } from '../../lib/run.ts'
import { waitFor } from '../../lib/retry.ts'

test('arguments reach the command unchanged', async () => {
  const words = ['a b', "it's", '$HOME', '`x`', '*', '', '-n', 'naïve']
  const { stdout } = await run('printf', ['[%s]', ...words])
  expect(stdout).toBe(words.map((word) => `[${word}]`).join(''))
})

test('a user’s .bashrc does not affect the output of a command', async () => {
  const home = mkdtempSync(join(tmpdir(), 'home-'))
  onTestFinished(() => rmSync(home, { recursive: true }))
  writeFileSync(join(home, '.bashrc'), 'echo hello\n')
  vi.stubEnv('HOME', home)
  vi.stubEnv('SHLVL', undefined)
  onTestFinished(() => void vi.unstubAllEnvs())
  expect((await run('echo', ['said'])).stdout).toBe('said\n')
})

test('input reaches the command, and one that does not read it is judged by its exit code alone', async () => {
  expect((await run('cat', [], { input: 'hello' })).stdout).toBe('hello')
  for (const none of [{}, { input: '' }])
    expect((await run('cat', [], { ...none, timeout: 10 })).stdout).toBe('')
  const large = 'x'.repeat(2 ** 22)
  expect((await run('true', [], { input: large })).code).toBe(0)
  await expect(run('nonesuch', [], { input: large })).rejects.toThrow('`nonesuch` is not installed')
  const within = run('sh', ['-c', 'nonesuch'])
  await expect(within).rejects.toMatchObject({
    message: 'Command `sh -c nonesuch` exited with 127',
    detail: { evidence: expect.stringContaining('nonesuch') },
  })
})

test('a non-zero exit code is a failure with the last lines, unless it is allowed', async () => {
  const failed = run('sh', ['-c', 'echo why >&2; exit 4'])
  await expect(failed).rejects.toMatchObject({
    message: expect.stringContaining('exited with 4'),
    detail: { evidence: 'why' },
  })
  expect((await run('sh', ['-c', 'exit 4'], { allow: [4] })).code).toBe(4)
})

test('a time limit kills the command and its children', async () => {
  const marker = `600.${process.pid}`
  await expect(run('sh', ['-c', `sleep ${marker} & wait`], { timeout: 0.5 })).rejects.toThrow(
    'took longer than its limit of 0.5 s',
  )
  const left = await run('pgrep', ['-f', `^sleep ${marker}`], { allow: [1] })
  expect(left.stdout).toBe('')
})

test('run does not wait for a background process that holds the output open', async () => {
  const left = `600.5${process.pid}`
  onTestFinished(() => void execFileSync('pkill', ['-f', `^sleep ${left}`]))
  const much = 'head -c 3000000 /dev/zero | tr "\\0" x'
  const held = await run('sh', ['-c', `sleep ${left} & ${much}`], { timeout: 60 })
  expect(held.stdout).toHaveLength(3_000_000)
  const failed = run('sh', ['-c', `sleep ${left} & echo why >&2; exit 4`], { timeout: 60 })
  await expect(failed).rejects.toMatchObject({
    message: expect.stringContaining('exited with 4'),
    detail: { evidence: 'why' },
  })
})

test('a command dies with the lab, even if that is killed with SIGKILL', async () => {
  const lib = join(import.meta.dirname, '../../lib/run.ts')
  const code = `import { run } from ${JSON.stringify(lib)}
await run('sh', ['-c', 'echo $$ >&2; exec sleep 600'], { onLine: (line) => console.log(line) })`
  const argv = ['--import', 'tsx', '--input-type=module', '--eval', code]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
  const [data] = await once(child.stdout, 'data')
  const pid = Number(String(data))
  expect(existsSync(`/proc/${pid}`)).toBe(true)
  child.kill('SIGKILL')
  await waitFor('the command to die', 10, () => !existsSync(`/proc/${pid}`))
})
