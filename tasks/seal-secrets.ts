import { lstatSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { makeDirectory } from '../lib/directory.ts'
import { Failure, usage as usageFailure } from '../lib/failure.ts'
import { flakeDirectory } from '../lib/flake/directory.ts'
import { intendToAdd } from '../lib/flake/git-index.ts'
import { chooseGuest } from '../lib/nix/guest.ts'
import { chooseHosts } from '../lib/nix/hosts.ts'
import { ensureAgeKey, isOurs, seal, sopsRules, type AgeKey } from '../lib/nix/secrets.ts'
import { pasted } from '../lib/quote.ts'
import { requireWay } from '../lib/scaffold/directory.ts'
import { main, type Args } from '../lib/task.ts'
import { readRegular, requireWritable, writeFile, type FileSeen } from '../lib/write-file.ts'

export const name = 'seal-secrets'
export const describe = 'Give each VM an age key and seal a harmless secret to all of them'
export const usage = '[host..]'
export const positionals = {
  host: { describe: 'Hosts that may read it; default: all of the flake', array: true },
}
export const options = {
  keys: {
    type: 'boolean',
    describe: 'Only make the keys and print their public parts, for your own secrets',
  },
  'dry-run': { type: 'boolean', describe: 'Show every effect, but change nothing' },
} as const
export const under = [
  'writes <LAB_HOME>/keys/age/<host>.txt, which deploy-vm copies to the VM before its first boot',
  'writes .sops.yaml and secrets/base.yaml in the flake, in the format of sops',
  'git add --intent-to-add   a flake does not see what git does not know',
]
export const examples: [string, string][] = [
  ['just seal-secrets', 'For every host of the flake'],
  ['tsx tasks/seal-secrets.ts sorrow --dry-run', 'Show what would be written for one host'],
  ['just seal-secrets --keys', 'Show what to add to your own .sops.yaml'],
]

/** Name of the key with which the lab's owner reads the secret. */
const ownKey = 'lab'

export async function run(args: Args): Promise<void> {
  const flake = flakeDirectory()
  const { keys: keysAlone, 'dry-run': dryRun } = args
  if (keysAlone) return printKeys(await hostsOf(args), dryRun)
  const rules = join(flake, '.sops.yaml')
  const file = join(flake, 'secrets', 'base.yaml')
  requireWay(flake, [rules, file])
  const [oldRules, old] = [ours(rules), ours(file)]
  const hosts = await hostsOf(args)
  if (hosts.includes(ownKey))
    throw usageFailure(
      `Cannot seal to a host that is called \`${ownKey}\`: the lab's own key has that name`,
      'Name the hosts that may read it: just seal-secrets <host..>',
    )
  if (dryRun) {
    console.log(`would make the age keys of ${ownKey}, ${hosts.join(', ')} unless they are there`)
    console.log(`would write ${rules} and ${file}`)
    await tellGit(flake, [rules, file], true)
    return
  }
  const owner = await ensureAgeKey(ownKey)
  const keys: Record<string, AgeKey> = {}
  for (const host of hosts) keys[host] = await ensureAgeKey(host)
  const recipients = [owner, ...Object.values(keys)].map(({ recipient }) => recipient)
  const text = await seal({ greeting: `Sealed to ${hosts.join(', ')}` }, recipients)
  makeDirectory(dirname(file))
  writeFile(rules, sopsRules(owner, keys), { over: oldRules })
  writeFile(file, text, { over: old })
  console.log(
    `${file}: greeting, for ${hosts.join(', ')}; read it with SOPS_AGE_KEY_FILE=${pasted(owner.path)}`,
  )
  await tellGit(flake, [rules, file], false)
}

const hostsOf = (args: Args): Promise<string[]> =>
  chooseHosts(args['host'], chooseGuest().attribute, args['dry-run'])

/** Prints each VM's public key as YAML, to be pasted into the `keys` of a `.sops.yaml`. */
async function printKeys(hosts: string[], dryRun: boolean): Promise<void> {
  if (dryRun)
    return console.log(`would make the age keys of ${hosts.join(', ')} unless they are there`)
  for (const host of hosts) console.log(`- &${host} ${(await ensureAgeKey(host)).recipient}`)
}

/** Marks the files for git, or says that it would, and prints the notes. */
async function tellGit(flake: string, files: string[], dryRun: boolean): Promise<void> {
  const { marked, notes } = await intendToAdd(flake, files, dryRun)
  for (const one of marked)
    console.log(`${dryRun ? 'would mark' : 'Marked'} ${one} for git (--intent-to-add)`)
  for (const note of notes) console.log(`Note: ${note}`)
}

/** The file, if it exists and only the lab wrote it. @throws Failure if it holds anything else */
function ours(path: string): FileSeen | undefined {
  if (!lstatSync(path, { throwIfNoEntry: false })) return undefined
  const seen = readRegular(path)
  requireWritable(seen)
  if (isOurs(seen.bytes.toString())) return seen
  throw new Failure(
    `Cannot write \`${path}\`: the lab did not write it, or it holds more than the lab wrote`,
    {
      hint: 'Your own secrets stay as they are: just seal-secrets --keys prints what to add to your .sops.yaml, before sops updatekeys',
    },
  )
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
