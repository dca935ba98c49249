import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { waitFor } from '../../../lib/retry.ts'
import { kernelFailure, kernelOf, KernelFailed } from '../../../lib/vm/kernel.ts'
import { files } from '../../../lib/vm/vm.ts'

const boot = '\u001b[2JBdsDxe: starting Boot0001 "disk"\r\n\u001b[0;1;39mWelcome to Debian\r\n'
const oops = `[   12.345678] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\r
[   12.345679] CPU: 0 PID: 1 Comm: systemd Not tainted\r
[   12.345680] RIP: 0010:ktime_get_with_offset+0x3d/0xb0\r
[   12.400000] Kernel panic - not syncing: Fatal exception in interrupt\r
`

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'kernel-'))
  process.env['LAB_HOME'] = home
  mkdirSync(dirname(files('sorrow').serial), { recursive: true })
})
afterEach(() => {
  delete process.env['LAB_HOME']
  rmSync(home, { recursive: true })
})
const serial = (text: string): void => writeFileSync(files('sorrow').serial, text)
const says = (text: string): void => appendFileSync(files('sorrow').serial, text)

test.each([
  [oops, 'oopsed', 'Oops: int3: 0000 [#1] PREEMPT SMP NOPTI, in ktime_get_with_offset'],
  ['[ 1.0] int3: 0000 [#1] SMP\n', 'oopsed', 'int3: 0000 [#1] SMP'],
  ['[ 1.0] BUG: unable to handle page fault for address: 0\n', 'oopsed', 'BUG: unable'],
  ['[ 1.0] kernel BUG at mm/slub.c:1!\n', 'oopsed', 'kernel BUG at mm/slub.c:1!'],
  [
    '[ 3.1] Kernel panic - not syncing: sysrq triggered crash\n',
    'panicked',
    'sysrq triggered crash',
  ],
])('a kernel failure is recognised by its message: %j', (text, how, what) => {
  expect(kernelFailure(boot + text)).toMatchObject({ how, what: expect.stringContaining(what) })
})

test('similar messages are not mistaken for one', () => {
  const lines = ['[ 1.0] ACPI: BIOS BUG: report a bug\n', '[    2.0] sshd[1]: Oops, wrong door\n']
  for (const line of lines) expect(kernelFailure(boot + line)).toBeUndefined()
})

test('a failed wait names the kernel oops of the current boot, and where it happened', async () => {
  serial(boot)
  const blame = kernelOf('sorrow')
  says(oops)
  const thrown = await waitFor('`sorrow` to boot', 0.1, () => false, { blame }).catch(
    (error: unknown) => error,
  )
  expect(thrown).toBeInstanceOf(KernelFailed)
  expect(thrown).toMatchObject({
    how: 'oopsed',
    message: expect.stringMatching(
      /^Waiting for `sorrow` to boot: the kernel of `sorrow` oopsed: Oops: int3: .*, in ktime_get/,
    ),
    detail: { evidence: expect.stringContaining('RIP: 0010:ktime_get_with_offset') },
  })
})

test('an oops before the wait began, in the same boot, is named as well', () => {
  serial(boot + oops)
  expect(kernelOf('sorrow')('Connecting')?.message).toMatch(/^Connecting: the kernel/)
})

test('an oops of an earlier boot, or of an earlier log, is ignored', () => {
  serial(boot + oops + boot)
  const blame = kernelOf('sorrow')
  expect(blame('Connecting')).toBeUndefined()
  serial(boot)
  expect(blame('Connecting')).toBeUndefined()
  says(oops)
  expect(blame('Connecting')).toBeDefined()
  expect(kernelOf('torment')('Connecting')).toBeUndefined()
})

test('an oops before the awaited boot is ignored, unless it caused that boot', () => {
  serial(boot + oops)
  const blame = kernelOf('sorrow')
  expect(blame('Waiting')).toBeDefined()
  says(boot)
  expect(blame('Waiting')).toBeUndefined()
  says(oops + boot)
  expect(blame('Waiting')).toBeDefined()
})
