import { expect, test } from 'vitest'
import { nixReader } from '../../lib/flake/syntax.ts'
import { parseShell } from '../../lib/mutation/bash.ts'

test('Two languages requested at the same time are each parsed with their own grammar', async () => {
  const [shell, open] = await Promise.all([
    parseShell('[ -e /x ] && exit'),
    nixReader({ x: '{ a = 1; }' }),
  ])
  expect([shell.type, shell.hasError]).toEqual(['program', false])
  expect([open('x').root.type, open('x').broken]).toEqual(['source_code', undefined])
})
