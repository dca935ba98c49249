import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { run } from '../lib/run.ts'
import { project } from '../lib/settings.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'imports-'))
  cpSync(join(project, '.oxlintrc.json'), join(dir, '.oxlintrc.json'))
})
afterEach(() => {
  rmSync(dir, { recursive: true })
})

const write = (files: Record<string, string>): void => {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
}

/** The files in which the linter of `just ok` reports a circle of imports. */
async function circles(): Promise<string[]> {
  const oxlint = join(project, 'node_modules/.bin/oxlint')
  const { stdout } = await run(oxlint, ['--format=unix'], { cwd: dir, allow: [1] })
  const found = stdout.split('\n').filter((line) => line.includes('no-cycle'))
  return [...new Set(found.map((line) => line.split(':')[0]!))].toSorted()
}

test('the linter detects import cycles, of values or only of types', async () => {
  write({ 'one.ts': "import { b } from './two.ts'\nexport const a = (): number => b\n" })
  write({ 'two.ts': "import { a } from './one.ts'\nexport const b = a()\n" })
  write({ 'three.ts': "import type { D } from './four.ts'\nexport type C = D[]\n" })
  write({ 'four.ts': "import type { C } from './three.ts'\nexport type D = C | string\n" })
  write({ 'five.ts': "import { b } from './two.ts'\nexport const e = b\n" })
  expect(await circles()).toEqual(['four.ts', 'one.ts', 'three.ts', 'two.ts'])
})

test('there is no import cycle, even with dynamic imports counted as static ones', async () => {
  const tracked = ['ls-files', '--cached', '--others', '--exclude-standard', 'lib', 'tasks']
  const paths = execFileSync('git', tracked, { cwd: project, encoding: 'utf8' }).split('\n')
  const sources = paths.filter((path) => path.endsWith('.ts'))
  expect(sources.length).toBeGreaterThan(100)
  // the linter does not follow dynamic imports, so each becomes a static one
  let waiting = 0
  const atOnce = (text: string): string => {
    const late = [...text.matchAll(/\bimport\(\s*'(\.[^']+)'/g)].map(([, path]) => path!)
    waiting += late.length
    return `${text}${late.map((path) => `import '${path}'\n`).join('')}`
  }
  for (const path of sources) {
    write({ [path]: atOnce(readFileSync(join(project, path), 'utf8')) })
  }
  expect(waiting).toBeGreaterThan(5)
  expect(await circles()).toEqual([])
})
