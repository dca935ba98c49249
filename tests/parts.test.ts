import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { project } from '../lib/settings.ts'
import { filesOfOthers } from './parts.ts'

const commits = Array.from({ length: 64 }, (_, index) => `commit ${index}`)

test('each test file that one commit leaves out exists, and another commit runs it', () => {
  const left = commits.map(filesOfOthers)
  const files = [...new Set(left.flat())]
  expect(files.filter((file) => !existsSync(join(project, file)))).toEqual([])
  for (const file of files) expect(left.some((some) => !some.includes(file))).toBe(true)
  // every part occurs, and each file is in exactly one
  const each = [...new Set(left.map((some) => some.join()))].map((some) => some.split(','))
  expect(each).toHaveLength(4)
  for (const file of files) expect(each.filter((some) => !some.includes(file))).toHaveLength(1)
})

test('without a commit nothing is left out', () => {
  expect(filesOfOthers('')).toEqual([])
})
