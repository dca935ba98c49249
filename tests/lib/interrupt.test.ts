import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'

test.each(['/dev/null/lab', join(project, 'package.json')])(
  'an interrupted task prints one line, even if LAB_HOME is %s',
  (home) => {
    const script = `import { endOnSignals, loadForSignals } from '${project}/lib/interrupt.ts'
endOnSignals('task')
await loadForSignals()
process.kill(process.pid, 'SIGINT')
setTimeout(() => {}, 60_000)`
    const { status, stderr } = spawnSync(
      process.execPath,
      ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script],
      { env: { ...process.env, LAB_HOME: home }, encoding: 'utf8' },
    )
    expect(stderr).toMatch(/^task: Cut short: which VMs run is not known .*\n$/)
    expect(status).toBe(130)
  },
)
