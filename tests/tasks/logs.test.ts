/** `just logs`, for a VM that seems to run, with an endless journal. */
import { spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { makeBox } from '../box.ts'
import { ended, startTask } from './started.ts'

let home: string
let qemu: ChildProcess
beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'logs-'))
  vi.stubEnv('LAB_HOME', home)
  vi.stubEnv('XDG_RUNTIME_DIR', home)
  const { vm } = await makeBox()
  qemu = spawn('sh', ['-c', 'sleep 600; :', vm.uuid], { argv0: 'qemu-system-x86_64' })
  await once(qemu, 'spawn')
  // exits as OpenSSH does: with 255 after a signal, and when its output is closed
  mkdirSync(join(home, 'bin'))
  const ssh = join(home, 'bin/ssh')
  writeFileSync(
    ssh,
    `#!/bin/sh\ntrap 'exit 255' INT\ntrap '' PIPE\nwhile echo line; do sleep 0.1; done 2>/dev/null\nexit 255\n`,
  )
  chmodSync(ssh, 0o755)
  vi.stubEnv('PATH', `${join(home, 'bin')}:${process.env['PATH']}`)
})
afterEach(() => {
  qemu.kill('SIGKILL')
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

test('Ctrl-C ends --follow with exit code 0', async () => {
  const following = startTask('logs', ['box', '--follow'])
  const came = ended(following)
  await once(following.stdout, 'data')
  // a terminal sends SIGINT to all processes in the foreground
  const { pid } = following
  const children = spawn('pkill', ['-INT', '-P', String(pid)])
  following.kill('SIGINT')
  await once(children, 'exit')
  expect(await came).toMatchObject({ code: 0, err: '' })
})

test('a reader that closes the pipe early is not a failure', async () => {
  const reading = startTask('logs', ['box'])
  const came = ended(reading)
  await once(reading.stdout, 'data')
  reading.stdout.destroy()
  expect(await came).toMatchObject({ code: 0, err: '' })
})
