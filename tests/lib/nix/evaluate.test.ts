import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { Failure } from '../../../lib/failure.ts'
import { evaluate, unfetched } from '../../../lib/nix/nix.ts'
import { run } from '../../../lib/run.ts'
import { project } from '../../../lib/settings.ts'
import { publishFlake } from '../../../lib/vm/remotes.ts'

let scratch: string
beforeAll(() => (scratch = mkdtempSync(join(tmpdir(), 'evaluate-'))))
afterAll(async () => {
  // what nix adds to a store is read-only
  await run('chmod', ['-R', 'u+w', scratch])
  rmSync(scratch, { recursive: true })
})

test('an input that cannot be fetched is not reported as a file missing from git', async () => {
  const locked = 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
  writeFileSync(
    join(scratch, 'flake.nix'),
    `{ outputs = _: { host = import (fetchTarball { url = "http://127.0.0.1:9/x.tar.gz"; sha256 = "${locked}"; }); }; }`,
  )
  const store = ['--store', join(scratch, 'store'), '--option', 'download-attempts', '1']
  await expect(evaluate(scratch, 'host', 'host: host', store)).rejects.toMatchObject({
    message: expect.stringContaining('http://127.0.0.1:9/x.tar.gz'),
    detail: { hint: expect.stringMatching(/^An input of the flake could not be fetched/) },
  })
})

test('the hint tells an input of the flake from one that the lab adds', async () => {
  const { nodes } = JSON.parse(readFileSync(join(project, 'flake.lock'), 'utf8'))
  const { rev } = nodes.disko.locked
  const flake = join(scratch, 'with-lock')
  mkdirSync(flake)
  writeFileSync(
    join(flake, 'flake.nix'),
    `{ outputs = _: { host = import (fetchTarball { url = "http://127.0.0.1:9/${rev}.tar.gz"; sha256 = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="; }); }; }`,
  )
  const store = ['--store', join(scratch, 'store'), '--option', 'download-attempts', '1']
  const hint = async (): Promise<string | undefined> =>
    await evaluate(flake, 'host', 'host: host', store).then(
      () => undefined,
      (failure: Failure) => failure.detail.hint,
    )
  expect(await hint()).toMatch(/^An input of the flake could not be fetched/)
  const lock = {
    version: 7,
    root: 'root',
    nodes: { root: {}, theirs: { locked: { rev } } },
  }
  expect(unfetched(flake, `unable to download ${rev}`)).toBe('An input of the flake')
  writeFileSync(join(flake, 'flake.lock'), JSON.stringify(lock))
  expect(unfetched(flake, `unable to download ${rev}`)).toBe('The input `theirs` of the flake')
})

test('a failure gives nix’s message, even if it quotes a value of many lines', async () => {
  const values = Array.from({ length: 20 }, (_, index) => `  value ${index}`)
  const words = ["The option `ports' does not exist. Definition values:", ...values].join('\n')
  writeFileSync(
    join(scratch, 'flake.nix'),
    `{ outputs = _: { host = throw ${JSON.stringify(words)}; }; }`,
  )
  const failed = evaluate(scratch, 'host', 'host: host', ['--store', join(scratch, 'store')])
  await expect(failed).rejects.toMatchObject({
    message: `Cannot evaluate \`${scratch}#host\`: The option \`ports' does not exist. Definition values:`,
    detail: { evidence: expect.stringMatching(/^error: The option .*\n *value 0\n/) },
  })
})

test.each(['near?other', 'near#other', 'near/hosts'])(
  'for the directory %s no other flake is evaluated, as nix itself would do',
  async (name) => {
    const flake = join(scratch, name)
    mkdirSync(join(scratch, 'near'), { recursive: true })
    mkdirSync(flake, { recursive: true })
    writeFileSync(join(scratch, 'near', 'flake.nix'), '{ outputs = _: { host = "near"; }; }')
    // a flake.nix beside it, or none
    if (name !== 'near/hosts')
      writeFileSync(join(flake, 'flake.nix'), '{ outputs = _: { host = "own"; }; }')
    const store = ['--store', join(scratch, 'store')]
    await expect(evaluate(flake, 'host', 'host: host', store)).rejects.toMatchObject({
      message: expect.stringMatching(/its path ends at the `[?#]`$|there is no flake.nix in it$/),
      detail: { hint: expect.stringMatching(/^Move it|LAB_FLAKE=DIR$/) },
    })
  },
)

test('git is mentioned only if the error may come from an untracked file', async () => {
  const flake = join(scratch, 'untracked')
  const hint = (): Promise<string | undefined> =>
    evaluate(flake, 'host', 'host: host', ['--store', join(scratch, 'store')]).then(
      () => 'none',
      (failure: Failure) => failure.detail.hint,
    )
  mkdirSync(flake)
  await run('git', ['init', '--quiet', flake])
  const flakeNix = join(flake, 'flake.nix')
  writeFileSync(flakeNix, '{ outputs = _: { host = throw "not this"; }; }')
  await run('git', ['-C', flake, 'add', 'flake.nix'])
  expect(await hint()).toBeUndefined()
  writeFileSync(join(flake, 'new.nix'), '1')
  expect(await hint()).toMatch(/git does not track/)
  rmSync(join(flake, 'new.nix'))
  writeFileSync(flakeNix, '{ outputs = _: { host = builtins.readFile ./secret.yaml; }; }')
  writeFileSync(join(flake, 'secret.yaml'), '1')
  expect(await hint()).toMatch(/git does not track/)
})

test.skipIf(process.getuid?.() !== 0)(
  'a repository of another user is reported with the git command that allows it',
  async () => {
    const flake = join(scratch, 'of-other')
    mkdirSync(flake)
    writeFileSync(join(flake, 'flake.nix'), '{ outputs = _: { host = 1; }; }')
    await run('git', ['init', '--quiet', flake])
    await run('git', ['-C', flake, 'add', '--all'])
    await run('chown', ['--recursive', '12345', flake])
    const store = ['--store', join(scratch, 'store')]
    await expect(evaluate(flake, 'host', 'host: host', store)).rejects.toMatchObject({
      message: `Cannot evaluate \`${flake}#host\`: its repository belongs to another user`,
      detail: { hint: `git config --global --add safe.directory ${flake}` },
    })
    vi.stubEnv('LAB_HOME', join(scratch, 'home'))
    vi.stubEnv('LAB_FLAKE', flake)
    await expect(publishFlake()).rejects.toMatchObject({
      message: `Cannot read \`${flake}\`: it belongs to another user`,
      detail: { hint: `git config --global --add safe.directory ${flake}` },
    })
    vi.unstubAllEnvs()
  },
)
