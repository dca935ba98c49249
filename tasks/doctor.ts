import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { freemem } from 'node:os'
import { findAccelerator } from '../lib/vm/accelerator.ts'
import { Exit, Failure, onFailure, type ExitCode } from '../lib/failure.ts'
import { findFirmware } from '../lib/vm/firmware.ts'
import {
  install,
  installLine,
  onDebian,
  packages,
  present,
  withNix,
  type Package,
} from '../lib/packages.ts'
import { requireNamespaces } from '../lib/namespaces.ts'
import { existingParent, freeBelow, gib } from '../lib/vm/preflight.ts'
import { labCache, labHome } from '../lib/settings.ts'
import { green, red, table, yellow } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'

export const name = 'doctor'
export const describe = 'Check that this machine has what the lab needs'
export const options = {
  install: { type: 'boolean', describe: 'Install the Debian packages that are missing' },
  tests: { type: 'boolean', describe: 'Also check what the tests need' },
  packages: {
    type: 'boolean',
    describe: 'Check only the packages, and print only those that are missing',
  },
  yes: { type: 'boolean', alias: 'y', describe: 'Install without asking' },
  json: { type: 'boolean', describe: 'Print data instead of a table' },
} as const
export const under = ['apt-get install --no-install-recommends <what packages.debian lists>']
export const examples: [string, string][] = [
  ['just doctor', 'Show what is here and what is missing'],
  ['just doctor --install --yes', 'Install it without asking'],
  ['just doctor --packages --tests', 'Show what `just ok` needs, and the command that installs it'],
]

interface Finding {
  what: string
  state: 'ok' | 'missing' | 'note'
  detail: string
}

export async function run(args: Args): Promise<ExitCode> {
  const wanted = packages().filter(({ forTests }) => args['tests'] || !forTests)
  const missing = wanted.filter((one) => !present(one))
  if (args['install'] && missing.length > 0) {
    await install(missing, Boolean(args['yes'] || process.env['CI']))
  }
  if (args['packages']) {
    requireAll(wanted.filter((one) => !present(one)))
    return Exit.held
  }
  const findings: Finding[] = [
    ...wanted.map((one) => ({
      what: one.name,
      state: present(one) ? ('ok' as const) : ('missing' as const),
      detail: one.why,
    })),
    await accelerator(),
    await namespaces(),
    room('memory', freemem(), 5),
    disk('disk for VMs', 'LAB_HOME', labHome()),
    disk('disk for images', 'LAB_CACHE', labCache()),
  ]
  if (args['json']) console.log(JSON.stringify(findings, null, 2))
  else {
    const colour = { ok: green, missing: red, note: yellow }
    const rows = findings.map(({ what, state, detail }) => [what, colour[state](state), detail])
    console.log(table([['part', 'state', 'for'], ...rows]))
    if (wanted.some((one) => !present(one))) {
      console.log(`\nhint: ${onDebian() ? 'just doctor --install brings the packages' : withNix}`)
    }
  }
  return findings.some(({ state }) => state === 'missing') ? Exit.checkFailed : Exit.held
}

/** @throws Failure with the command that installs what is missing */
function requireAll(missing: Package[]): void {
  if (missing.length === 0) return
  const what = missing.map(({ name: of, why }) => `\`${of}\` (${why})`)
  throw new Failure(`Cannot go on without ${what.join(', ')}`, {
    hint: onDebian() ? `${installLine(missing)}, or just doctor --tests --install` : withNix,
  })
}

async function accelerator(): Promise<Finding> {
  try {
    const { kind, reason } = await findAccelerator(findFirmware())
    return { what: kind, state: kind === 'kvm' ? 'ok' : 'note', detail: reason }
  } catch (error) {
    return { what: 'accelerator', state: 'missing', detail: (error as Error).message }
  }
}

async function namespaces(): Promise<Finding> {
  const what = 'namespaces'
  return requireNamespaces().then(
    () => ({ what, state: 'ok', detail: 'images and systems are built in them' }),
    onFailure(({ message, detail }) => ({
      what,
      state: 'missing',
      detail: detail.hint ?? message,
    })),
  )
}

const room = (what: string, bytes: number, wanted: number): Finding => ({
  what,
  state: bytes >= wanted * 1024 ** 3 ? 'ok' : 'note',
  detail: `${gib(bytes)} free, two VMs and an image want ${wanted}.0 GiB`,
})

/** @param variable that names the directory */
function disk(what: string, variable: string, path: string): Finding {
  try {
    accessSync(existingParent(path), constants.W_OK)
    if (!existsSync(path) || statSync(path).uid === process.getuid?.())
      return room(what, freeBelow(path), 5)
  } catch {}
  const detail = `this user may not write in \`${path}\`: set ${variable} to a directory of your own`
  return { what, state: 'missing', detail }
}

await main(import.meta, { name, describe, options, under, examples, run })
