/** A round of comin, with states from `comin status --json` of comin 0.13 in a guest, cut to what is used. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { comin, round } from '../../../lib/scenario/subject-comin.ts'
import { run } from '../../../lib/run.ts'

interface Generation {
  uuid: string
  selected_commit_id: string
  eval_status: string
  eval_started_at: string
  eval_err: string
  build_status: string
  build_err: string
}
interface Deployment {
  generation: Pick<Generation, 'uuid'>
  status: string
  error_msg: string
  created_at: string
}
interface State {
  builder?: Record<string, unknown>
  deployer?: Record<string, unknown>
  fetched?: string | null
  commit?: string
  errors?: [fetch: string, main: string]
  generations?: Generation[]
  deployments?: Deployment[]
}

const state = ({ builder, deployer, fetched = null, commit = '', errors, ...store }: State) => ({
  builder: { is_evaluating: false, is_building: false, generation: null, ...builder },
  deployer: { is_deploying: false, deployment: null, generation_to_deploy: null, ...deployer },
  fetcher: {
    is_fetching: false,
    repository_status: {
      selected_commit_id: commit,
      remotes: [
        {
          name: 'lab',
          fetch_error_msg: errors?.[0] ?? '',
          main: { error_msg: errors?.[1] ?? '' },
          fetched_at: fetched,
        },
      ],
    },
  },
  store: { deployments: [], generations: [], ...store },
})

const generation = (uuid: string, more: Partial<Generation> = {}): Generation => ({
  ...{ uuid, selected_commit_id: 'two', eval_status: 'evaluated', eval_err: '' },
  ...{ eval_started_at: `2026-11-26T11:17:1${uuid}Z`, build_status: 'built', build_err: '' },
  ...more,
})
const deployment = (uuid: string, status: string, error = ''): Deployment => ({
  ...{ generation: { uuid }, status, error_msg: error },
  created_at: `2026-11-26T11:17:2${uuid}Z`,
})
const fetched = '2026-11-26T11:17:13.8Z'

/**
 * Output and exit code of a round in which the daemon has these states: the first before the fetch, then one for
 * each question; the last one stays. `null` means that the daemon does not answer.
 */
async function follow(...states: (State | null)[]): Promise<{ said: string; code: number }> {
  const dir = mkdtempSync(join(tmpdir(), 'comin-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  states.forEach((one, index) => {
    if (one) writeFileSync(join(dir, String(index)), JSON.stringify(state(one)))
  })
  mkdirSync(join(dir, 'bin'))
  writeFileSync(
    join(dir, 'bin/comin'),
    `#!/bin/bash
cd ${dir}
case "$*" in
  fetch) echo 1 >at; echo 'All remotes have been fetched.' ;;
  'status --json')
    at=$(cat at 2>/dev/null || echo 0)
    [ "$at" = 0 ] || [ "$at" = ${states.length - 1} ] || echo $((at + 1)) >at
    cat "$at" 2>/dev/null ;;
  *) exit 64 ;;
esac
`,
  )
  chmodSync(join(dir, 'bin/comin'), 0o755)
  const { stdout, code } = await run('bash', ['-euo', 'pipefail', '-c', round], {
    env: { PATH: `${join(dir, 'bin')}:${process.env['PATH']}` },
    allow: [1],
    timeout: 60,
  })
  return { said: stdout.trim(), code }
}

const at = { fetched, commit: 'two' }
const [built, running, done] = [
  generation('1'),
  deployment('1', 'running'),
  deployment('1', 'done'),
]

test.each<[string, string, number, (State | null)[]]>([
  [
    'a commit that is deployed while the daemon restarts itself',
    'deployment: done:',
    0,
    [
      {},
      at,
      { ...at, builder: { is_evaluating: true } },
      { ...at, generations: [built], deployer: { is_deploying: true } },
      null,
      { generations: [built], deployments: [done] },
    ],
  ],
  [
    'one that does not evaluate',
    'evaluation: failed: syntax error',
    1,
    [{}, { ...at, generations: [{ ...built, eval_status: 'failed', eval_err: 'syntax error' }] }],
  ],
  [
    'one that does not build',
    'build: failed: 1 dependency failed',
    1,
    [
      {},
      {
        ...at,
        generations: [{ ...built, build_status: 'failed', build_err: '1 dependency failed' }],
      },
    ],
  ],
  [
    'one whose switch fails',
    'deployment: failed: exit status 4',
    1,
    [
      {},
      {
        ...at,
        generations: [built],
        deployments: [deployment('1', 'failed', 'exit status 4')],
      },
    ],
  ],
  [
    'one whose deployment was interrupted and is not resumed',
    'deployment: running:',
    1,
    [{}, { ...at, generations: [built], deployments: [running] }],
  ],
  [
    'one whose system runs already',
    'build: done: the same as before',
    0,
    [{}, { ...at, generations: [built] }],
  ],
  [
    'one that is deployed again by a restarted daemon',
    'deployment: done:',
    0,
    [
      { generations: [built], deployments: [running] },
      { ...at, generations: [built], deployments: [running] },
      {
        ...at,
        generations: [built, generation('2')],
        deployments: [running, deployment('2', 'done')],
      },
    ],
  ],
  [
    'one that failed before and is not tried again',
    'deployment: failed: exit status 4',
    1,
    [
      {
        commit: 'two',
        generations: [built],
        deployments: [deployment('1', 'failed', 'exit status 4')],
      },
      { ...at, generations: [built], deployments: [deployment('1', 'failed', 'exit status 4')] },
    ],
  ],
  [
    'a remote that cannot be reached',
    'fetch: dial tcp: connection refused',
    1,
    [{ commit: 'two' }, { ...at, errors: ['dial tcp: connection refused', ''] }],
  ],
  [
    'a branch that was rewritten',
    'fetch: this branch has been hard reset',
    1,
    [{ commit: 'two' }, { ...at, errors: ['', 'this branch has been hard reset'] }],
  ],
])('the outcome of a round is read from %s', async (_, said, code, states) => {
  expect(await follow(...states)).toEqual({ said, code })
})

test('a host with comin gets a module with the lab’s remote as its only one', () => {
  const needs = {
    branch: 'live',
    upgrade: { kind: null, unit: null, remote: null, promises: null },
    declared: { unit: 'comin', present: true, timer: false },
  }
  expect(comin({ ...needs, lacks: {}, here: false }).module).toBeUndefined()
  const { module } = comin({ ...needs, lacks: {}, here: true })
  const expr = `let lib.mkForce = x: x; module = ${module};
    found = module { inherit lib; config.services.comin.package = "p"; pkgs = { jq = "jq"; writeShellScript = _: text: text; }; };
    in { inherit (builtins.head found.services.comin.remotes) url branches; inherit (found.systemd.services.lab-comin) script; }`
  const { url, branches, script } = JSON.parse(
    execFileSync('nix-instantiate', ['--eval', '--strict', '--json', '--expr', expr], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  ) as { url: string; branches: { main: { name: string } }; script: string }
  expect([url, branches.main.name]).toEqual(['git://git.lab/config.git', 'live'])
  // the script survives Nix's quoting unchanged
  expect(script.trim()).toBe(round.trim())
})
