/**
 * `npm test`: installs what the tests lack, runs them (of the slow ones a quarter, see parts.ts), and
 * then looks for what they left behind. The whole suite has its own TMPDIR, so that a file left there,
 * and a process that still has it in its environment, is known to come from the suite.
 */
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { install, packages, present } from '../lib/packages.ts'
import { run } from '../lib/run.ts'
import { sweepScratch } from '../lib/scratch.ts'
import { project } from '../lib/settings.ts'
import { filesOfOthers } from './parts.ts'

const missing = packages().filter((one) => !present(one))
if (missing.length > 0) {
  await install(missing, Boolean(process.env['CI']) || process.getuid?.() === 0)
}

const scratch = mkdtempSync(join(tmpdir(), 'lab-tests-'))
// the image is built under the ids of a user namespace, which must be able to enter
chmodSync(scratch, 0o711)
process.env['TMPDIR'] = scratch
for (const variable of Object.keys(process.env)) {
  if (variable.startsWith('LAB_') && !variable.startsWith('LAB_TEST_')) {
    if (!['LAB_DEBIAN_MIRROR', 'LAB_NIXOS_EVAL'].includes(variable)) delete process.env[variable]
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, cutShort)

const { parseCLI, startVitest } = await import('vitest/node')
const { filter, options } = parseCLI(['vitest', 'run', ...process.argv.slice(2)])
const commit = await commitOfPart()
process.env['LAB_TEST_COMMIT'] = commit
const vitest = await startVitest('test', filter, { ...options, run: true, watch: false })
const counts = { passed: 0, failed: 0, skipped: 0 }
for (const module of vitest.state.getTestModules()) {
  for (const test of module.children.allTests()) {
    const result = test.result()
    const { state } = result
    if (state === 'passed') counts.passed += 1
    else if (state === 'failed') counts.failed += 1
    else {
      counts.skipped += 1
      const why = (result.state === 'skipped' && result.note) || 'without a reason'
      console.log(`skipped: ${module.relativeModuleId}: ${test.fullName}: ${why}`)
    }
  }
  // a file that could not even be loaded has no tests to count
  if (module.state() === 'failed' && module.errors().length > 0) counts.failed += 1
}
await vitest.close()

// removes what killed tasks left, as the next task would
sweepScratch(scratch)
const left = [
  ...readdirSync(scratch)
    // `cache` holds the images that the whole suite shares
    .filter((entry) => !/^(cache|tsx-\d+|node-compile-cache|v8-compile-cache.*)$/.test(entry))
    .map((entry) => `the file ${join(scratch, entry)}`),
  ...readdirSync('/proc')
    .filter(isOurs)
    .map((pid) => `process ${pid}: ${commandLine(pid)}`),
]
for (const one of left) console.log(`left behind: ${one}`)
if (left.length === 0) rmSync(scratch, { recursive: true })
counts.failed += left.length
const ofOthers = filesOfOthers(commit)
counts.skipped += ofOthers.length
for (const file of ofOthers) {
  console.log(`skipped: ${file}: other commits run it, as each runs a quarter of the slow tests`)
}
if (ofOthers.length > 0) console.log('LAB_TEST_ALL=1 npm test runs all')
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0)

/** The commit whose part of the slow tests runs; empty if all run, or those that were named. */
async function commitOfPart(): Promise<string> {
  if (filter.length > 0 || options.project || process.env['LAB_TEST_ALL']) return ''
  const { stdout } = await run('git', ['rev-parse', 'HEAD'], { cwd: project, allow: [128] })
  // a copy without git always runs the same part
  return process.env['LAB_TEST_COMMIT'] || stdout.trim() || 'none'
}

/** Ctrl-C: returns to the prompt at once, and leaves no process of the tests running. */
function cutShort(): void {
  // a child may start while its parent is being killed
  for (let round = 0; round < 3; round++) {
    for (const pid of readdirSync('/proc').filter(isOurs)) {
      try {
        process.kill(Number(pid), 'SIGKILL')
      } catch {
        // it has ended by itself
      }
    }
  }
  let files = 'no file is left'
  try {
    rmSync(scratch, { recursive: true, maxRetries: 3 })
  } catch {
    files = `files are left in ${scratch}`
  }
  // vitest hides the cursor and draws below it
  const from = process.stderr.isTTY && process.env['TERM'] !== 'dumb' ? '\u001b[?25h\r\u001b[J' : ''
  const words = `every process of the tests was ended, ${files}; npm test begins anew`
  process.stderr.write(`${from}tests: Cut short: ${words}\n`)
  process.exit(130)
}

function isOurs(pid: string): boolean {
  if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
    // esbuild serves this process and ends with it
    return environment.includes(`TMPDIR=${scratch}`) && !commandLine(pid).includes('esbuild')
  } catch {
    return false
  }
}

function commandLine(pid: string): string {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').slice(0, 160)
}
