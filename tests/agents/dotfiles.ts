/** Two hosts of one user as two homes in a scratch root, with the dotfile agent and one bare remote. */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { syncForm } from '../../lib/scenario/status-form.ts'
import { project } from '../../lib/settings.ts'
import type { ScratchRoot } from './root.ts'

/** The agent's status.json. */
export interface SyncStatus {
  phase: string
  outcome: string | null
  reason: string | null
  captured: string[]
  applied: string[]
  kept: Array<{ file: string; reason: string; copy?: string }>
  conflicts: Array<{ host: string; files: string[] }>
}

export interface Synced extends SyncStatus {
  code: number
  output: string
}

export interface Host {
  name: string
  home: string
  /** Runs a bash script as the user, in this home; returns its output. */
  sh: (script: string) => Promise<string>
  /** Runs the agent; returns its status file, exit code and output. */
  sync: (env?: Record<string, string>) => Promise<Synced>
  conflicts: () => Promise<string>
}

export interface Dotfiles {
  sorrow: Host
  torment: Host
  remote: string
  /** Runs a script at the bare remote. */
  atRemote: (script: string) => Promise<string>
  /** The texts of a file under each home. */
  both: (file: string) => Promise<string[]>
}

const module = readFileSync(join(project, 'nix/modules/chezmoi-sync.nix'), 'utf8')
const part = (name: string): string =>
  readFileSync(join(project, 'nix/agents', `${name}.sh`), 'utf8')
/** Text of each program as in its wrapper, but without the settings, by name. */
const programs = Object.fromEntries(
  [...module.matchAll(/command "([\w-]+)" \[([^\]]*)\]/g)].map(([, name, parts]) => [
    name!,
    [...(parts!.match(/[\w-]+/g) ?? []), name!].map(part).join(''),
  ]),
)
export const agent = programs['chezmoi-sync']!
export const restorer = programs['chezmoi-restore-kept']!

const place = '/home/rain/w'

/**
 * Two synchronized hosts with these files under each home; `files` maps a path to its text. They replace the
 * hosts that were made before in this root. The paths are fixed, because clones contain them; from the second
 * call on the hosts are copied.
 */
export async function makeDotfiles(
  root: ScratchRoot,
  files: Record<string, string>,
): Promise<Dotfiles> {
  for (const [name, text] of Object.entries(programs))
    writeFileSync(join(root.dir, 'tmp', `${name}.sh`), text)
  const remote = `${place}/dotfiles.git`
  const sorrow = makeHost(root, 'sorrow', `${place}/sorrow`, remote)
  const torment = makeHost(root, 'torment', `${place}/torment`, remote)
  const digest = createHash('sha256').update(JSON.stringify(files)).digest('hex')
  const made = `/home/rain/made/${digest}`
  if (existsSync(join(root.dir, made))) {
    await root.sh(`rm -rf ${place}; cp -a ${made} ${place}`)
  } else {
    await root.sh(`rm -rf ${place}`)
    await fill(root, [sorrow, torment], remote, files)
    await root.sh(`mkdir -p ${dirname(made)}; cp -a ${place} ${made}`)
  }
  return {
    sorrow,
    torment,
    remote,
    atRemote: (script) => root.sh(`cd ${remote}; ${script}`, { user: 'rain' }),
    both: async (file) =>
      Promise.all([sorrow, torment].map((host) => host.sh(`cat ${quote(file)}`))),
  }
}

/** The first host publishes the files, and the second one gets them from the remote. */
async function fill(
  root: ScratchRoot,
  hosts: [Host, Host],
  remote: string,
  files: Record<string, string>,
): Promise<void> {
  const homes = hosts.map(({ home }) => home).join(' ')
  await root.sh(`mkdir -p ${homes}; git init -q --bare -b main ${remote}`, { user: 'rain' })
  const writes = Object.entries(files).map(
    ([path, text]) => `printf %s ${quote(text)} >${quote(path)}; chezmoi add ${quote(path)}`,
  )
  await hosts[0].sh(
    `mkdir -p .local/share/chezmoi; jj git init --colocate .local/share/chezmoi 2>&1; ${writes.join('\n')}`,
  )
  for (const host of hosts) {
    const { outcome, output } = await host.sync()
    if (outcome !== 'synced') throw new Error(`Cannot set the dotfiles up: ${output}`)
  }
}

export function makeHost(root: ScratchRoot, name: string, home: string, remote: string): Host {
  const env = {
    HOME: home,
    CHEZMOI_HOST: name,
    CHEZMOI_REPO_URL: remote,
    CHEZMOI_STATE: '',
  }
  const host: Host = {
    name,
    home,
    sh: (script) => root.sh(`cd; ${script}`, { user: 'rain', env }),
    sync: async (more = {}) => {
      const { code, stdout, stderr } = await root.run(
        ['bash', '-euo', 'pipefail', '/tmp/chezmoi-sync.sh'],
        { user: 'rain', env: { ...env, ...more }, allow: [1, 137] },
      )
      const status = await host.sh(
        'cat .local/state/chezmoi-sync/status.json 2>/dev/null || echo {}',
      )
      const found = JSON.parse(status) as SyncStatus
      const misfit = found.phase ? syncForm(found) : undefined
      if (misfit !== undefined) throw new Error(`In the status is ${misfit}`)
      return { ...found, code, output: stdout + stderr }
    },
    conflicts: () => host.sh('bash -euo pipefail /tmp/chezmoi-show-conflicts.sh'),
  }
  return host
}

export const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`
export const lines = (...all: string[]): string => all.map((line) => `${line}\n`).join('')
