/** The worked examples of docs/promises.md, unchanged, on a separate VM. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { armor, Encrypter, generateX25519Identity, identityToRecipient } from 'age-encryption'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CaseResult } from '../../lib/report/result.ts'
import { project } from '../../lib/settings.ts'
import { changeHost, copyFlake } from '../flake-copy.ts'
import { makeLab, type Lab } from '../lab.ts'

const examples = join(project, 'docs/promises')
let lab: Lab
let flake: string
beforeAll(async () => {
  lab = makeLab()
  flake = copyFlake(lab.dir)
  lab.env['LAB_FLAKE'] = flake
  const host = join(flake, 'hosts/sorrow')
  for (const name of ['web', 'firewall', 'secret'])
    cpSync(join(examples, `${name}.nix`), join(host, `${name}.nix`))
  cpSync(join(examples, 'lab.toml'), join(flake, 'lab.toml'))
  mkdirSync(join(flake, 'lab'))
  cpSync(join(examples, 'close-ssh.patch'), join(flake, 'lab/close-ssh.patch'))
  mkdirSync(join(host, 'secret'))
  const [own, other] = [await generateX25519Identity(), await generateX25519Identity()]
  writeFileSync(join(host, 'secret/key.txt'), `${own}\n`)
  for (const [file, text, key] of [
    ['now', 'one', own],
    ['next', 'two', own],
    ['foreign', 'two', other],
  ] as const)
    writeFileSync(join(host, `secret/${file}.age`), await sealed(text, key))
  changeHost(flake, 'sorrow', '{ imports = [ ./web.nix ./firewall.nix ./secret.nix ]; }\n')
  const as = ['-C', flake, '-c', 'user.name=lab', '-c', 'user.email=lab@localhost']
  execFileSync('git', [...as, 'commit', '--quiet', '--all', '--message=Examples'])
})
afterAll(() => lab.remove())

async function sealed(text: string, key: string): Promise<string> {
  const encrypter = new Encrypter()
  encrypter.addRecipient(await identityToRecipient(key))
  return armor.encode(await encrypter.encrypt(`${text}\n`))
}

async function judged(...flags: string[]): Promise<CaseResult[]> {
  const { stdout, stderr } = await lab.task('promises', 'sorrow', '--json', '--seed', '7', ...flags)
  expect(stdout, stderr).not.toBe('')
  return (JSON.parse(stdout) as { results: CaseResult[] }).results
}

// two per test, because a busy machine takes minutes for each
test.each([
  { cases: ['web-stays-up', 'ssh-stays-open'], asks: 1 },
  { cases: ['secret-is-rotated', 'secret-of-another'], asks: 3 },
])('the worked examples $cases pass, with all of their checks', async ({ cases, asks }) => {
  const results = await judged(...cases.flatMap((name) => ['--case', name]))
  expect(results.map((one) => [one.case, one.state, one.reason])).toEqual(
    cases.map((name) => [name, 'passed', '']),
  )
  const asked = results.flatMap(({ checks }) => checks.map(({ name }) => name))
  expect(asked.filter((name) => /^`.*` (succeeds|fails)$/.test(name))).toHaveLength(asks)
})

test('a broken promise fails, with its command in the reason', async () => {
  const path = join(flake, 'lab.toml')
  writeFileSync(
    path,
    `[[promise]]
name = "web-is-broken"
title = "it is broken for good"
holds = "curl --silent --fail http://127.0.0.1:8080/health | grep broken"
within = 3
`,
  )
  const [one] = await judged()
  expect(one).toMatchObject({ case: 'web-is-broken', state: 'failed' })
  expect(one!.reason).toMatch(/succeeds: expected within \d+ s, found not within/)
})
