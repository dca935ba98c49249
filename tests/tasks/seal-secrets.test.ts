import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ended, startTask, type Ended } from './started.ts'

let dir: string
let flake: string
beforeEach(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'seal-secrets-')))
  flake = join(dir, 'flake')
  mkdirSync(flake)
  writeFileSync(
    join(flake, 'flake.nix'),
    '{ outputs = { self }: { labConfigurations = { sorrow = { }; torment = { }; }; }; }\n',
  )
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const seal = (...args: string[]): Promise<Ended> =>
  ended(
    startTask('seal-secrets', args, {
      LAB_FLAKE: flake,
      LAB_HOME: join(dir, 'home'),
      LAB_GUEST: 'debian',
      LAB_ENV_FILE: '',
    }),
  )
const rules = (): string => join(flake, '.sops.yaml')
const sealed = (): string => join(flake, 'secrets/base.yaml')

/** All files below the flake, with their contents. */
const everything = (): Record<string, string> =>
  Object.fromEntries(
    readdirSync(flake, { recursive: true, encoding: 'utf8' })
      .toSorted()
      .map((path) => {
        const stat = lstatSync(join(flake, path))
        return [path, stat.isFile() ? readFileSync(join(flake, path), 'utf8') : String(stat.mode)]
      }),
  )

test('secrets are sealed to every host, and again if hosts are added or removed', async () => {
  expect(await seal()).toMatchObject({ code: 0, err: '' })
  expect(readFileSync(rules(), 'utf8')).toContain('&torment')
  expect(await seal('sorrow')).toMatchObject({ code: 0, err: '' })
  expect(readFileSync(rules(), 'utf8')).not.toContain('&torment')
  expect(readFileSync(sealed(), 'utf8').match(/recipient: /g)).toHaveLength(2)
})

test('if the flake has its own secrets, --keys makes only the keys, which stay the same', async () => {
  writeFileSync(rules(), 'creation_rules: []\n')
  const before = everything()
  expect((await seal()).err).toContain('just seal-secrets --keys')
  const { code, out, err } = await seal('--keys')
  expect({ code, err }).toEqual({ code: 0, err: '' })
  expect(out).toMatch(/^- &sorrow age1[a-z0-9]{58}\n- &torment age1[a-z0-9]{58}\n$/)
  expect(await seal('--keys', 'torment')).toMatchObject({
    code: 0,
    out: out.split(/^(?=- &t)/m)[1],
  })
  expect(everything()).toEqual(before)
})

test('a greeting that sops has re-encrypted still counts as the lab’s', async () => {
  await seal()
  const text = readFileSync(sealed(), 'utf8')
  writeFileSync(sealed(), text.replace('sops:\n', 'sops:\n    kms: []\n    pgp: []\n'))
  expect(await seal()).toMatchObject({ code: 0 })
  expect(readFileSync(sealed(), 'utf8')).not.toContain('kms')
})

test.each<[string, () => void | Promise<void>]>([
  [
    'secrets of a flake without a .sops.yaml',
    () => {
      mkdirSync(join(flake, 'secrets'))
      writeFileSync(sealed(), 'mine: ENC[AES256_GCM,data:x]\nsops:\n    age: []\n')
    },
  ],
  [
    'a secret that was added with sops',
    async () => {
      await seal()
      const text = readFileSync(sealed(), 'utf8')
      writeFileSync(sealed(), text.replace('sops:\n', 'password: ENC[AES256_GCM,data:x]\nsops:\n'))
    },
  ],
  [
    'rules that were added to those of the lab',
    async () => {
      await seal()
      const more = '  # of my own\n  - path_regex: \\.env$\n    age: age1x\n'
      writeFileSync(rules(), `${readFileSync(rules(), 'utf8')}${more}`)
    },
  ],
  [
    'a host with the name of the lab’s own key',
    () => {
      const text =
        '{ outputs = { self }: { labConfigurations = { lab = { }; sorrow = { }; }; }; }\n'
      writeFileSync(join(flake, 'flake.nix'), text)
    },
  ],
  ['a file instead of the directory', () => writeFileSync(join(flake, 'secrets'), 'x\n')],
  ['a directory instead of the secrets', () => void mkdirSync(sealed(), { recursive: true })],
  ['a directory instead of the rules', () => mkdirSync(rules())],
  ['rules behind a symlink', () => symlinkSync('nowhere', rules())],
  [
    'secrets behind a symlink',
    () => {
      mkdirSync(join(dir, 'elsewhere'))
      symlinkSync('../elsewhere', join(flake, 'secrets'))
    },
  ],
  [
    'a file that is read-only',
    async () => {
      await seal()
      chmodSync(sealed(), 0o444)
    },
  ],
])('%s: refused in one line, and nothing is written', async (_, prepare) => {
  await prepare()
  const before = everything()
  const keys = existsSync(join(dir, 'home'))
  const { code, out, err } = await seal()
  expect({ code, out }).toEqual({ code: expect.toBeOneOf([2, 3]), out: '' })
  expect(err).toMatch(/^seal-secrets: Cannot [^\n]*\n( {2}hint: .*\n)?$/)
  expect(everything()).toEqual(before)
  expect(existsSync(join(dir, 'home'))).toBe(keys)
})
