/**
 * To run thousands of rounds: `LAB_ROUNDS=5000 LAB_SEED=1 npx vitest run tests/agents/chezmoi-rounds.test.ts`.
 * A failed round reports its seed; repeat it with that LAB_SEED and LAB_ROUNDS=1.
 */
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { prelude, round } from './chezmoi-rounds.ts'
import { agent, restorer } from './dotfiles.ts'
import { type ScratchRoot, useRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

const rounds = Number(process.env['LAB_ROUNDS'] ?? 12)
/** Seconds: a day, because the default limit of `run` is two minutes. */
const limit = 86_400
/** Fixed by default, so that the suite always runs the same rounds. */
const first = Number(process.env['LAB_SEED'] ?? 785_833)

test(
  'Everything in a home that is in no commit is still there after any synchronization',
  async () => {
    console.log(`LAB_SEED=${first} LAB_ROUNDS=${rounds}`)
    writeFileSync(join(root.dir, 'tmp/agent.sh'), agent)
    writeFileSync(join(root.dir, 'tmp/restorer.sh'), restorer)
    const seeds = Array.from({ length: rounds }, (_, index) => first + index)
    const count = Math.min(cpus().length + 1, rounds)
    const ran = await Promise.all(
      Array.from({ length: count }, async (_, player) => {
        const script = seeds.filter((seed) => (seed - first) % count === player).map(round)
        writeFileSync(
          join(root.dir, `tmp/rounds-${player}.sh`),
          `${prelude}\nagent=/tmp/agent.sh restorer=/tmp/restorer.sh\n${script.join('\n')}\ndeclare -p counts\n`,
        )
        const { stdout, stderr } = await root.run(['bash', `/tmp/rounds-${player}.sh`], {
          user: 'rain',
          timeout: limit,
        })
        return `${stdout}${stderr}`
      }),
    )
    const said = ran.join('\n').split('\n')
    console.log(said.filter((line) => line.includes('counts')).join('\n'))
    const bad = said.filter((line) => line.startsWith('BAD'))
    const replay = 'LAB_ROUNDS=1 LAB_SEED=<seed> npx vitest run tests/agents/chezmoi-rounds.test.ts'
    expect(bad, `to play one again: ${replay}`).toEqual([])
    expect(said.filter((line) => line.startsWith('DONE'))).toHaveLength(rounds)
  },
  limit * 1000,
)
