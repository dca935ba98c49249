import { expect, test } from 'vitest'
import { readGeneration } from '../../../lib/vm/generation.ts'

const [here, other] = ['/nix/store/a-nixos-system', '/nix/store/b-nixos-system']

/** The lines that a guest prints. */
const printed = (
  more: Partial<Record<'golden' | 'trial' | 'armedIn' | 'deployed' | 'revision', string>>,
  ...numbers: number[]
) =>
  [
    ...[here, more.golden ?? '', more.trial ?? '', more.armedIn ?? '', 'this-boot'],
    ...[more.deployed ?? '', more.revision ?? ''],
    ...numbers.map((number) => `/nix/var/nix/profiles/system-${number}-link`),
    '',
  ].join('\n')

test.each([
  [
    'a generation of the working tree, golden',
    printed({ golden: here }, 1),
    { number: 1, golden: true },
  ],
  ['several numbers of one generation', printed({}, 10, 9, 2), { number: 10, golden: false }],
  ['one that is not in the profile', printed({}), { golden: false }],
  [
    'one that an upgrade deployed',
    printed({ golden: other, deployed: `c0ffee beef ${here} 2026-01-01T00:00:00Z` }, 3),
    { number: 3, commit: 'c0ffee', golden: false },
  ],
  [
    'one newer than the last upgrade',
    printed({ deployed: `c0ffee beef ${other} 2026-01-01T00:00:00Z` }, 4),
    { number: 4, golden: false },
  ],
  [
    'a revision of NixOS',
    printed({ revision: 'abc' }, 4),
    { number: 4, commit: 'abc', golden: false },
  ],
  [
    'a booted trial',
    printed({ golden: other, trial: here, armedIn: 'boot-before' }, 5),
    { number: 5, golden: false, trial: 'running' },
  ],
  [
    'a switch to the system that the next boot will try',
    printed({ golden: other, trial: here, armedIn: 'this-boot' }, 5),
    { number: 5, golden: false, trial: 'next' },
  ],
  [
    'golden after a failed trial that was not judged yet',
    printed({ golden: here, trial: other, armedIn: 'boot-before' }, 1),
    { number: 1, golden: true },
  ],
])('the generation is read for %s', (_, text, generation) => {
  expect(readGeneration(text)).toEqual({ toplevel: here, ...generation })
})

test('empty output gives a generation that is not golden', () => {
  expect(readGeneration('')).toEqual({ toplevel: '', golden: false })
})
