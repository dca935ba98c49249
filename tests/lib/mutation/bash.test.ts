import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Node } from 'web-tree-sitter'
import { expect, onTestFinished, test } from 'vitest'
import { editsOfShell, parseShell } from '../../../lib/mutation/bash.ts'
import type { Kind } from '../../../lib/mutation/edit.ts'
import { mutantsOf, mutated, programs, sample } from '../../../lib/mutation/mutant.ts'
import { editsOfModule } from '../../../lib/mutation/nix.ts'
import { run } from '../../../lib/run.ts'
import { project } from '../../../lib/settings.ts'

const changes = async (text: string, kind: Kind): Promise<string[]> =>
  (await editsOfShell(text)).filter((one) => one.kind === kind).map((one) => mutated(text, one))

test.each<[Kind, string, string[]]>([
  ['statement', 'f() { one; two; }', ['f() { :; two; }', 'f() { one; :; }']],
  ['order', 'one\ntwo\n', ['two\none\n']],
  [
    'condition',
    'if [[ -e a && -e b ]]; then c; fi',
    [
      'if ! { [[ -e a && -e b ]]; }; then c; fi',
      'if true; then c; fi',
      'if false; then c; fi',
      'if [[ -e a ]]; then c; fi',
      'if [[ -e b ]]; then c; fi',
    ],
  ],
  [
    'condition',
    'if ! a; then c; fi',
    ['if a; then c; fi', 'if true; then c; fi', 'if false; then c; fi'],
  ],
  ['guard', 'one || stop failed "no"', ['one || true', 'stop failed "no"']],
  ['guard', 'one && two', ['one', 'two']],
  ['guard', 'one || true', []],
  ['comparison', '[[ $a -lt 3 ]] || stop', ['[[ $a -le 3 ]] || stop']],
  ['comparison', 'if [[ $a == b ]]; then c; fi', []],
  ['constant', 'head -n 1 x 2>&1', ['head -n 0 x 2>&1']],
  ['constant', 'a=$((b + 512))', ['a=$((b + 513))']],
  [
    'branch',
    'case $a in\n  b) c ;;\n  *) d ;;\nesac',
    ['case $a in\n  \n  *) d ;;\nesac', 'case $a in\n  b) c ;;\n  \nesac'],
  ],
  ['timeout', 'timeout --kill-after=10 "$limit" git fetch || no', ['git fetch || no']],
  ['sync', 'a && sync "$file" && b', ['a && true && b']],
  ['lock', 'x 9>&-', ['x ']],
  ['lock', 'a && flock --nonblock 9 && b', ['a && true && b']],
])('the %s mutants of %j', async (kind, text, expected) => {
  expect((await changes(text, kind)).toSorted()).toEqual(expected.toSorted())
})

test('Messages for users are not mutated, nor a list that a here-document follows', async () => {
  expect(await editsOfShell('say "locked: $who"\n')).toEqual([])
  const here = 'f() {\n  cat <<END && two\ntext\nEND\n}\n'
  expect((await editsOfShell(here)).filter(({ kind }) => kind === 'guard')).toEqual([])
})

const errors = (node: Node): Node[] => [
  ...(node.isError || node.isMissing ? [node] : []),
  ...node.children.flatMap(errors),
]

test.each([...programs(project)].filter(([, file]) => file.endsWith('.sh')))(
  'The grammar can parse %s except for single words',
  async (_, file) => {
    const text = readFileSync(join(project, file), 'utf8')
    const found = errors(await parseShell(text))
    expect(found.length).toBeLessThan(3)
    for (const node of found) expect(node.endPosition.row).toBe(node.startPosition.row)
  },
)

test('Every mutant of these agents is valid bash and has its own id', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'mutants-'))
  onTestFinished(() => rmSync(scratch, { recursive: true }))
  const ids = new Set<string>()
  let count = 0
  for (const agent of ['pin-golden', 'show-golden', 'golden-services', 'upgrade-remote']) {
    const file = programs(project).get(agent)!
    const text = readFileSync(join(project, file), 'utf8')
    for (const mutant of await mutantsOf(project, agent, file)) {
      count++
      ids.add(mutant.id)
      writeFileSync(join(scratch, mutant.id), mutated(text, mutant))
    }
  }
  expect(count).toBeGreaterThan(200)
  expect(ids.size).toBe(count)
  const { stdout } = await run('bash', [
    '-c',
    'for file in "$1"/*; do bash -n "$file" 2>&1 || echo "$file"; done',
    'bash',
    scratch,
  ])
  expect(stdout).toBe('')
})

test('A mutant keeps its id when lines are added above it', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'mutants-'))
  onTestFinished(() => rmSync(scratch, { recursive: true }))
  const ids = async (text: string): Promise<string[]> => {
    writeFileSync(join(scratch, 'a.sh'), text)
    return (await mutantsOf(scratch, 'a', 'a.sh')).map(({ id }) => id)
  }
  const text = 'f() {\n  one || stop\n  one || stop\n}\n'
  const before = await ids(text)
  expect(before.length).toBeGreaterThan(5)
  expect(await ids(`# a comment\n\n${text}`)).toEqual(before)
})

test('A sample depends on its seed alone', async () => {
  const mutants = await mutantsOf(project, 'pin-golden', 'nix/agents/pin-golden.sh')
  const of = (seed: number): string[] => sample(mutants, 5, seed).map(({ id }) => id)
  expect(of(1)).toEqual(of(1))
  expect(of(1)).not.toEqual(of(2))
  expect(new Set(of(1)).size).toBe(5)
})

test('In a module, entries that order a unit, equip it or keep it running are dropped one by one', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'mutants-'))
  onTestFinished(() => rmSync(scratch, { recursive: true }))
  const text = `{ lib, ... }: {
  systemd.services.one = {
    after = lib.optionals true [ "a" "b" ] ++ [ "c" ];
    restartIfChanged = false;
    serviceConfig = { Type = "oneshot"; ExecStart = "x"; };
  };
}
`
  writeFileSync(join(scratch, 'a.nix'), text)
  const dropped = (await editsOfModule(join(scratch, 'a.nix'))).map(({ from, to }) =>
    text.slice(from, to),
  )
  expect(dropped).toEqual(['"a"', '"b"', '"c"', 'restartIfChanged = false;', 'Type = "oneshot";'])
})
