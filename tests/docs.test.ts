import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { evaluate } from '../lib/nix/nix.ts'
import { run as runCommand } from '../lib/run.ts'
import { allPromises, promises } from '../lib/scenario/promise.ts'
import { comin } from '../lib/scenario/subject-comin.ts'
import { labSubject } from '../lib/scenario/subject-lab.ts'
import { nixosUpgrade } from '../lib/scenario/subject-nixos-upgrade.ts'
import { anyUnit } from '../lib/scenario/subject-unit.ts'
import { project } from '../lib/settings.ts'
import { families } from '../tasks/pipelines/families.ts'
import { copyFlake } from './flake-copy.ts'

const read = (path: string): string => readFileSync(join(project, path), 'utf8')
const pages = [
  'README.md',
  ...['how-it-works', 'nixos', 'ci', 'scenarios', 'subjects', 'promises', 'figures', 'limits'].map(
    (name) => `docs/${name}.md`,
  ),
]

/** The page with every case, from the tables; `just docs` rewrites it. */
async function scenarios(): Promise<string> {
  const all = await families()
  const parts = all.map(({ name, describe, cases }) =>
    [
      `## ${name}`,
      `${describe}. ${cases.length} cases.`,
      ...cases.map(
        (one) => `- \`${one.name}\`${one.hosts === 2 ? ' (both VMs)' : ''}: ${one.title}`,
      ),
    ]
      .join('\n')
      .replace(/\n(?=[^-])/, '\n\n')
      .replace(/\n(?=- )/, '\n\n'),
  )
  const count = all.reduce((sum, { cases }) => sum + cases.length, 0)
  return `# Scenarios

All ${count} cases, by family. \`just gitops-test <family>\` runs a family, \`--case <name>\` one case. This page is
written from the tables in \`tasks/\` by \`just docs\`.

${parts.join('\n\n')}
`
}

test('docs/scenarios.md lists every case of the tables', async () => {
  await expect(await scenarios()).toMatchFileSnapshot('../docs/scenarios.md')
})

test('docs/promises.md shows the examples that the tests run', () => {
  const shown = [...read('docs/promises.md').matchAll(/```toml\n([^]*?)```/g)].map(
    ([, text]) => text!,
  )
  const run = read('docs/promises/lab.toml')
  expect(shown.length).toBe(3)
  expect(run.slice(run.indexOf('[[promise]]'))).toBe(shown.join('\n'))
})

test('the flake of docs/nixos.md offers its own hosts to the embedded guest', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'docs-'))
  try {
    const own = join(scratch, 'own')
    const [, shown = ''] = /```nix\n([^]*?)```/.exec(read('docs/nixos.md')) ?? []
    cpSync(join(project, 'hosts'), join(own, 'hosts'), { recursive: true })
    const lab = `git+file://${copyFlake(scratch)}`
    writeFileSync(join(own, 'flake.nix'), shown.replace('github:OWNER/gitops-vm-lab', lab))
    const names = 'builtins.mapAttrs (_: host: host.config.hostSpec.hostName)'
    const store = ['--store', join(scratch, 'store')]
    const found = await evaluate(own, 'labConfigurations', names, store, { readOnly: true })
    expect(found).toEqual({ sorrow: 'sorrow', torment: 'torment' })
  } finally {
    // what nix adds to a store is read-only
    await runCommand('chmod', ['-R', 'u+w', scratch])
    rmSync(scratch, { recursive: true })
  }
})

test('docs/subjects.md lists for each promise who makes it', async () => {
  const text = read('docs/subjects.md')
  const facts = {
    branch: 'main',
    lacks: {},
    here: false,
    declared: { unit: 'x', present: true, timer: true },
  }
  const upgrade = { kind: null, unit: 'x', remote: null, promises: null }
  const subjects = [labSubject, nixosUpgrade({ ...facts, upgrade }), comin({ ...facts, upgrade })]
  const rows = [...text.matchAll(/^\| `(\w+)` +\| (.+?) +\| (yes)? +\| (yes)? +\| (yes)? +\|$/gm)]
  expect(rows.map(([, ...row]) => row)).toEqual(
    allPromises.map((name) => [
      name,
      promises[name],
      ...subjects.map((one) => (one.promises.has(name) ? 'yes' : undefined)),
    ]),
  )
  const own = anyUnit({ ...facts, upgrade })
  expect(text).toContain('A `unit` promises `deploy`, `refuse`, `offline` and `whole` unless')
  expect([...own.promises]).toEqual(['deploy', 'refuse', 'offline', 'whole'])
})

test.each(pages)('%s has no broken link', (page) => {
  const links = [...read(page).matchAll(/\]\(([^)#\s]+)(#[^)]*)?\)/g)].map(([, link]) => link!)
  const missing = links
    .filter((link) => !/^https?:/.test(link))
    .filter((link) => !existsSync(join(project, dirname(page), link)))
  expect(missing).toEqual([])
})

test('the README is short, and the docs name only existing recipes', () => {
  const text = read('README.md')
  expect(text.split('\n').length).toBeLessThanOrEqual(151)
  const recipes = new Set(
    [...read('justfile').matchAll(/^([a-z][\w-]*)[^:=\n]*:(?!=)/gm)].map(([, name]) => name),
  )
  const named = pages.flatMap((page) =>
    [...read(page).matchAll(/(?<![\w-])just ([a-z][\w-]*)/g)].map(([, name]) => name!),
  )
  expect(named.length).toBeGreaterThan(15)
  expect(named.filter((name) => !recipes.has(name))).toEqual([])
})
