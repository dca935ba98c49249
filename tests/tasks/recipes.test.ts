import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { scenario, type Family } from '../../lib/scenario/scenario.ts'
import type { Task } from '../../lib/task.ts'

interface Recipe {
  doc: string | null
  body: unknown[][]
}

const just = join(project, 'node_modules/.bin/just')
const dump = await run(just, ['--dump', '--dump-format', 'json'], { cwd: project })
const { recipes } = JSON.parse(dump.stdout) as { recipes: Record<string, Recipe> }

/** The recipe that runs a task file, by the file's place below `tasks/`. */
const byTask = new Map(
  Object.entries(recipes).flatMap(([name, recipe]) => {
    const [, file] = /(?:,"|tasks\/)([\w/-]+\.ts) /.exec(JSON.stringify(recipe.body)) ?? []
    return file && !file.startsWith('bench/') ? [[file, { name, ...recipe }] as const] : []
  }),
)
const tasks = readdirSync(join(project, 'tasks'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  // one that cannot be started is a part of others
  .filter((file) => readFileSync(join(project, 'tasks', file), 'utf8').includes('(import.meta,'))
  .toSorted()

test('every recipe of a task runs a file that there is', () => {
  expect(byTask.size).toBeGreaterThan(10)
  expect(tasks).toEqual(expect.arrayContaining([...byTask.keys()]))
})

test.each(tasks)('%s has a recipe that says what the task says of itself', async (file) => {
  const loaded = (await import(join(project, 'tasks', file))) as Task & {
    task?: Task
    family?: Family
  }
  const task = loaded.task ?? (loaded.family ? scenario(loaded.family) : loaded)
  const recipe = byTask.get(file)
  expect(recipe?.doc).toBe(task.describe)
  expect(task.under.length).toBeGreaterThan(0)
  expect(task.examples.length).toBeGreaterThan(1)
})
