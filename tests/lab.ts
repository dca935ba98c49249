/** Helpers for tests: run a task or a recipe as a user would, in a separate lab for the test. */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach } from 'vitest'
import { project } from '../lib/settings.ts'

export interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

export interface Lab {
  dir: string
  env: Record<string, string>
  /** Runs `tsx tasks/<name>.ts` to its end. */
  task: (name: string, ...args: string[]) => Promise<Ended>
  /** Runs a recipe of the justfile to its end. */
  just: (...args: string[]) => Promise<Ended>
  /** Starts a task and kills it when a line of its progress matches. */
  killAt: (line: RegExp, signal: NodeJS.Signals, name: string, ...args: string[]) => Promise<Ended>
  start: (name: string, ...args: string[]) => ChildProcess
  /** Stops every VM and removes all that the lab wrote. */
  remove: () => Promise<void>
}

/** The output of the test's commands, because an unexpected exit code alone explains nothing. */
let said: Ended[] = []
beforeEach(() => void (said = []))
afterEach(({ task }) => {
  const error = task.result?.errors?.[0]
  if (!error) return
  // added to the error, because often only the end of a CI log is kept
  for (const { code, stdout, stderr } of said.slice(-3)) {
    const words = `${stderr}\n${stdout}`.trim().split('\n').slice(-60).join('\n')
    error.message += `\n\na command of this test exited with ${code}:\n${words}`
  }
})

/** A lab with a separate `LAB_HOME`; the image cache is shared by the whole suite. */
export function makeLab(extra: Record<string, string> = {}): Lab {
  const dir = mkdtempSync(join(tmpdir(), 'lab-'))
  const env: Record<string, string> = {
    LAB_HOME: join(dir, 'home'),
    LAB_CACHE: process.env['LAB_TEST_CACHE'] ?? join(tmpdir(), 'cache'),
    LAB_ENV_FILE: '',
    // the sockets are removed with it
    XDG_RUNTIME_DIR: dir,
    CI: 'true',
    ...extra,
  }
  const node = (file: string, args: string[]): ChildProcess =>
    spawn(
      process.execPath,
      ['--import', import.meta.resolve('tsx'), join(project, file), ...args],
      {
        cwd: project,
        env: { ...process.env, ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    )
  const start: Lab['start'] = (name, ...args) => node(`tasks/${name}.ts`, args)
  const lab: Lab = {
    dir,
    env,
    start,
    task: (name, ...args) => ended(start(name, ...args)),
    just: (...args) =>
      ended(
        spawn(join(project, 'node_modules/.bin/just'), args, {
          cwd: project,
          env: { ...process.env, ...env },
          stdio: ['ignore', 'pipe', 'pipe'],
        }),
      ),
    killAt: (line, signal, name, ...args) => {
      const child = start(name, ...args)
      for (const stream of [child.stdout!, child.stderr!]) {
        createInterface({ input: stream }).on(
          'line',
          (text) => line.test(text) && child.kill(signal),
        )
      }
      return ended(child)
    },
    remove: async () => {
      await lab.task('down', '--now')
      rmSync(dir, { recursive: true, force: true })
    },
  }
  return lab
}

function ended(child: ChildProcess): Promise<Ended> {
  let stdout = ''
  let stderr = ''
  child.stdout!.on('data', (data: Buffer) => (stdout += data.toString()))
  child.stderr!.on('data', (data: Buffer) => (stderr += data.toString()))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      said.push({ code, stdout, stderr })
      resolve({ code, stdout, stderr })
    })
  })
}
