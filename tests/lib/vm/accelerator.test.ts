import { expect, test } from 'vitest'
import { emulatedCpus } from '../../../lib/vm/accelerator.ts'

test.each([
  ['QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)', 1],
  ['QEMU emulator version 8.0.5', 1],
  ['QEMU emulator version 8.1.0', 2],
  ['QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)', 2],
  // whatever it is, it is no old one
  ['', 2],
])('%s emulates %d CPUs', (said, cpus) => {
  expect(emulatedCpus(said)).toBe(cpus)
})
