/** Reads the CI workflow files, for tests that run their lines. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { project } from '../lib/settings.ts'

interface Job {
  steps?: { run?: string }[]
  script?: string[]
  env?: Record<string, string>
  variables?: Record<string, string>
}

export const github = '.github/workflows/gitops.yml'
export const gitlab = '.gitlab-ci.yml'

export const textOf = (file: string): string => readFileSync(join(project, file), 'utf8')

/** The shell commands of a job, line by line. */
export function linesOf(file: string, job: string): string[] {
  const read = parse(textOf(file)) as Record<string, Job> & { jobs?: Record<string, Job> }
  const found = (read.jobs ?? read)[job]
  if (!found) throw new Error(`${file} has no job ${job}`)
  return found.script ?? found.steps!.flatMap(({ run }) => run ?? [])
}
