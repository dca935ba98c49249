import { expect, test } from 'vitest'
import { taken } from '../../tasks/status.ts'

test('a VM that was deleted while status asked it takes no room, and ends nothing', () => {
  expect(taken('/nonexistent/vms/sorrow')).toBe(0)
})
