import { expect, test } from 'vitest'
import { taken } from '../../tasks/status.ts'

test('a VM deleted while status reads it has size 0, and status goes on', () => {
  expect(taken('/nonexistent/vms/sorrow')).toBe(0)
})
