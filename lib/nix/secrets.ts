import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { chmodSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { lock, locked } from '../lock.ts'
import { labHome } from '../settings.ts'
import { writeFile } from '../write-file.ts'

/** An age key of the lab: a VM's own, or the lab's, with which the lab's user reads sealed files. */
export interface AgeKey {
  /** The file that `age --identity` and sops take. */
  path: string
  /** The public part: `age1…`. */
  recipient: string
}

type PublicKey = Pick<AgeKey, 'recipient'>

const keyFile = (name: string): string => join(labHome(), 'keys', 'age', `${name}.txt`)

/** The text of a VM's age key file, if it has one. */
export const ageKeyText = (host: string): string | undefined =>
  existsSync(keyFile(host)) ? readFileSync(keyFile(host), 'utf8') : undefined

/** The age key of that name, made on first use. @throws Failure when an existing file contains no key */
export async function ensureAgeKey(name: string): Promise<AgeKey> {
  const { generateX25519Identity, identityToRecipient } = await import('age-encryption')
  const path = keyFile(name)
  for (const dir of [labHome(), join(labHome(), 'keys'), join(labHome(), 'keys', 'age')]) {
    privateDirectory(dir)
  }
  const take = () => lock(`${path}.lock`, `make the age key of \`${name}\``, { wait: 30 })
  return locked([take], async () => {
    if (!existsSync(path)) {
      const identity = await generateX25519Identity()
      const recipient = await identityToRecipient(identity)
      writeFile(path, `# public key: ${recipient}\n${identity}\n`, { mode: 0o600, over: 'any' })
    }
    chmodSync(path, 0o600)
    const [identity] = /^AGE-SECRET-KEY-1[0-9A-Z]+$/m.exec(readFileSync(path, 'utf8')) ?? []
    if (!identity) {
      throw new Failure(`Cannot read an age key in \`${path}\``, {
        hint: 'Remove it: a new one is made, and what was sealed to the old one is sealed again',
      })
    }
    return { path, recipient: await identityToRecipient(identity) }
  })
}

/**
 * A file as `sops` writes it (version 3 of its format: docs of getsops/sops, "Encryption protocol"):
 * each value under AES-256-GCM with one data key, the data key under age for each recipient, and a
 * MAC over all values, so that a reader notices if one was changed or removed.
 * @param values text by name
 * @returns YAML
 * @throws Failure for a name that YAML would not read as that text, or an empty value
 */
export async function seal(
  values: Record<string, string>,
  recipients: string[],
  now = new Date(),
): Promise<string> {
  const { Encrypter, armor } = await import('age-encryption')
  const key = randomBytes(32)
  const hash = createHash('sha512')
  const lines = Object.entries(values).map(([name, value]) => {
    if (!/^[a-z][a-z0-9_-]*$/.test(name))
      throw new Failure(`Cannot seal a secret named \`${name}\``)
    // sops does not encrypt empty values
    if (value === '') throw new Failure(`Cannot seal the secret \`${name}\`: it is empty`)
    hash.update(value)
    // the name is authenticated with the value, so that two values cannot be swapped
    return `${name}: ${encrypt(key, value, `${name}:`)}`
  })
  const lastModified = `${now.toISOString().slice(0, 19)}Z`
  const mac = encrypt(key, hash.digest('hex').toUpperCase(), lastModified)
  const age = await Promise.all(
    recipients.map(async (recipient) => {
      const encrypter = new Encrypter()
      encrypter.addRecipient(recipient)
      const text = armor.encode(await encrypter.encrypt(key)).trimEnd()
      const indented = text.split('\n').map((line) => `            ${line}`)
      return [`        - recipient: ${recipient}`, '          enc: |', ...indented].join('\n')
    }),
  )
  return [
    ...lines,
    'sops:',
    '    age:',
    ...age,
    `    lastmodified: "${lastModified}"`,
    `    mac: ${mac}`,
    '    unencrypted_suffix: _unencrypted',
    '    version: 3.9.0',
    '',
  ].join('\n')
}

/** @param context authenticated with the value: its path in the file, or the modification time for the MAC */
function encrypt(key: Buffer, value: string, context: string): string {
  // sops uses 32 bytes here, unlike the usual 12
  const iv = randomBytes(32)
  const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(context))
  const data = Buffer.concat([cipher.update(value, 'utf8'), cipher.final()])
  const base64 = [data, iv, cipher.getAuthTag()].map((part) => part.toString('base64'))
  return `ENC[AES256_GCM,data:${base64[0]},iv:${base64[1]},tag:${base64[2]},type:str]`
}

const header = '# Made by `seal-secrets` of the lab, which writes it anew.'

/** `.sops.yaml`: who can read which file, for users who edit one with sops itself. */
export const sopsRules = (owner: PublicKey, hosts: Record<string, PublicKey>): string =>
  [
    header,
    'keys:',
    `  - &lab ${owner.recipient}`,
    ...Object.entries(hosts).map(([host, { recipient }]) => `  - &${host} ${recipient}`),
    'creation_rules:',
    '  - path_regex: ^secrets/[^/]+\\.yaml$',
    '    key_groups:',
    '      - age:',
    '          - *lab',
    ...Object.keys(hosts).map((host) => `          - *${host}`),
    '',
  ].join('\n')

/**
 * Whether a file is the lab's own, and may be overwritten: a `.sops.yaml` exactly as the lab writes it, or a file with
 * only the sealed greeting. A user may have added rules, or secrets with sops, to other files.
 */
export const isOurs = (text: string): boolean =>
  isOwnRules(text) || /^greeting: ENC\[.*\nsops:\n( .*\n)*$/.test(text)

function isOwnRules(text: string): boolean {
  const [owner, ...hosts] = [...text.matchAll(/^ {2}- &(\S+) (\S+)$/gm)].map(
    ([, host = '', recipient = '']): [string, PublicKey] => [host, { recipient }],
  )
  return owner !== undefined && text === sopsRules(owner[1], Object.fromEntries(hosts))
}
