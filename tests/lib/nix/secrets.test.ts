import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ensureAgeKey, isOurs, seal, sopsRules, type AgeKey } from '../../../lib/nix/secrets.ts'

// an implementation of sops' format that is independent of ours
const { decryptSops } = await import('sops-age')

let home: string
let sorrow: AgeKey
let torment: AgeKey
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'lab-secrets-'))
  process.env['LAB_HOME'] = home
  sorrow = await ensureAgeKey('sorrow')
  torment = await ensureAgeKey('torment')
})
afterAll(() => {
  delete process.env['LAB_HOME']
  rmSync(home, { recursive: true })
})

const secretKey = ({ path }: AgeKey): string => readFileSync(path, 'utf8').split('\n')[1]!
const open = (content: string, key: AgeKey) =>
  decryptSops(content, { fileType: 'yaml', secretKey: secretKey(key) } as never)

describe('A sealed file', () => {
  test('can be opened with the key of each of its recipients', async () => {
    const text = await seal({ greeting: 'Grüße', token: 'a\nb' }, [
      sorrow.recipient,
      torment.recipient,
    ])
    for (const key of [sorrow, torment]) {
      expect(await open(text, key)).toEqual({ greeting: 'Grüße', token: 'a\nb' })
    }
    expect(text).not.toContain('Grüße')
  })

  test('cannot be opened with another host’s key', async () => {
    const text = await seal({ greeting: 'hello' }, [sorrow.recipient])
    await expect(open(text, torment)).rejects.toThrow(/No matching recipient/)
  })

  test('cannot be opened once it was tampered with', async () => {
    const text = await seal({ greeting: 'hello' }, [sorrow.recipient])
    const spoilt = text.replace(/data:(.)/, (_, one: string) => `data:${one === 'A' ? 'B' : 'A'}`)
    await expect(open(spoilt, sorrow)).rejects.toThrow(/auth|tag|MAC|decrypt/i)
  })
})

test('An empty secret is refused, because sops would leave it unencrypted', async () => {
  await expect(seal({ greeting: '' }, [sorrow.recipient])).rejects.toThrow('Cannot seal')
})

test('A key is made once, readable only by its owner', async () => {
  expect(await ensureAgeKey('sorrow')).toEqual(sorrow)
  expect(statSync(sorrow.path).mode & 0o777).toBe(0o600)
  expect(sorrow.recipient).toMatch(/^age1[0-9a-z]{58}$/)
})

test('The sops rules name every key, and are recognised as the lab’s only if unedited', () => {
  const text = sopsRules(sorrow, { torment })
  expect(text).toContain(`- &torment ${torment.recipient}`)
  expect(isOurs(text)).toBe(true)
  expect(isOurs(sopsRules(sorrow, {}))).toBe(true)
  expect(isOurs('keys: []\n')).toBe(false)
  const added = `  - path_regex: ^mine$\n    age: ${torment.recipient}\n`
  for (const own of [`${text}${added}`, text.replace('keys:', '# mine\nkeys:'), `${text}\n`])
    expect(isOurs(own)).toBe(false)
})

describe('The check before a switch', () => {
  const script = join(import.meta.dirname, '../../../nix/agents/check-secrets.sh')
  const check = (key: AgeKey | undefined, ...files: string[]) => checkWith({}, key, ...files)
  const checkWith = (
    more: Record<string, string>,
    key: AgeKey | undefined,
    ...files: string[]
  ): { code: number; said: string } => {
    try {
      const env = { ...process.env, ...more, SECRETS_KEY: key?.path ?? join(home, 'none') }
      return {
        code: 0,
        said: execFileSync('sh', [script, ...files], { env, stdio: 'pipe' }).toString(),
      }
    } catch (error) {
      const { status, stderr } = error as { status: number; stderr: Buffer }
      return { code: status, said: stderr.toString() }
    }
  }
  const written = async (name: string, ...keys: AgeKey[]): Promise<string> => {
    const file = join(home, name)
    writeFileSync(
      file,
      await seal(
        { greeting: 'hello' },
        keys.map(({ recipient }) => recipient),
      ),
    )
    return file
  }

  test('passes a host whose key opens every file', async () => {
    const file = await written('base.yaml', torment, sorrow)
    expect(check(sorrow, file)).toEqual({ code: 0, said: '' })
  })

  test('stops a host with a wrong key, and names the file', async () => {
    const file = await written('other.yaml', torment)
    expect(check(sorrow, file)).toEqual({
      code: 1,
      said: `check-secrets: Cannot open \`${file}\` with the key in \`${sorrow.path}\`\n`,
    })
  })

  test('stops a host without a key', async () => {
    const file = await written('third.yaml', torment)
    expect(check(undefined, file)).toMatchObject({ code: 1 })
  })

  test('passes while a disk is made and there is no key yet, but not with a wrong key', async () => {
    const file = await written('fourth.yaml', torment)
    const making = { NIXOS_INSTALL_BOOTLOADER: '1' }
    expect(checkWith(making, undefined, file)).toMatchObject({ code: 0 })
    expect(checkWith(making, sorrow, file)).toMatchObject({ code: 1 })
  })
})
