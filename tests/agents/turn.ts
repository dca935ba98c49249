/** Runs before each test of the agents: leaves those to other commits that are theirs. */
import { beforeEach } from 'vitest'
import { inOtherHalf, isInHalf } from '../half.ts'

const commit = process.env['LAB_TEST_COMMIT']
if (commit) {
  beforeEach((context) => {
    const { file, name } = context.task
    context.skip(!isInHalf(`${file.name} ${name}`, commit), inOtherHalf)
  })
}
