import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { pasted } from '../../lib/quote.ts'

test.each([
  ['ssh', '-F', '/home/mia/.local/state/lab/ssh_config', 'sorrow'],
  ['ssh', '-F', '/home/mia/my lab/ssh_config', 'sorrow'],
  ['a', '', "it's", 'a"b', '$HOME', '`id`', 'é 🌳', '~', '*', 'a\nb', '\\', '#x', '!x'],
])('a quoted command line splits into its original words in a shell: %j', (...words) => {
  const line = pasted(...words)
  const said = execFileSync('bash', ['-c', `printf '%s\\0' ${line}`], { encoding: 'utf8' })
  expect(said.split('\0').slice(0, -1)).toEqual(words)
})

test('plain words are not quoted', () => {
  expect(pasted('just', 'add-to-flake', 'web', '--flake', '/home/mia/nixos')).toBe(
    'just add-to-flake web --flake /home/mia/nixos',
  )
})
