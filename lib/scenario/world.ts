import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { flakeDirectory } from '../flake/directory.ts'
import { throughOutputs } from '../flake/outputs.ts'
import type { Guest } from '../nix/guest.ts'
import { readHost, type Host } from '../nix/host.ts'
import { labSettings, type LabSettings } from '../lab-settings.ts'
import { serveLab } from '../vm/remotes.ts'
import { serve, serveNothing, serveStore } from '../vm/served.ts'
import { readVm } from '../vm/vm.ts'
import { hostModule, ownFiles } from './host-module.ts'
import { remote, git, type Changes, type Remote } from './remote.ts'
import { scratchDirectory } from '../scratch.ts'
import { labHome, project } from '../settings.ts'

/**
 * The remotes of one or two guests: `config.git`, the flake with their hosts, and `dotfiles.git`, a chezmoi source
 * directory. Each begins with the same commit in every world.
 */
export interface World extends Clones {
  id: string
  dir: string
  config: Remote
  dotfiles: Remote
  /** The commits that a baseline has cloned. */
  start: Start
  /** Flake reference of a commit of `config`; default: the first. */
  flake: (commit?: string) => string
  /** Evaluates a host as a commit of `config` has it. @throws Failure with Nix's error */
  host: (name: string, commit?: string, store?: string[]) => Promise<Host>
}

/** Branch and paths of the guests' clones, from `lab.toml`. */
export type Clones = Pick<LabSettings, 'branch' | 'paths'>

export interface Start {
  config: string
  dotfiles: string
}

/** The state in which every world begins; made once for each state of flake, guest and settings. */
export interface Template extends Start, Clones {
  dir: string
  guest: Guest
}

/**
 * The template of the flake as it is on the disk now, tracked files only, with its inputs and its lock; on top of it one
 * commit, as a person could have made it, that lets cases change hosts.
 * @param extra more files for it, by path, such as those that a control changes
 */
export async function template(
  guest: Guest,
  hosts: string[],
  extra: Changes = {},
): Promise<Template> {
  const { branch, paths } = await labSettings()
  const worlds = join(privateDirectory(labHome()), 'srv', '.worlds')
  mkdirSync(worlds, { recursive: true, mode: 0o700 })
  const scratch = scratchDirectory('world', worlds)
  try {
    const config = await bare(join(scratch, 'config.git'), branch)
    const dotfiles = await bare(join(scratch, 'dotfiles.git'), branch)
    await config.commit({}, 'The flake', { tree: await takeFlake(config) })
    const start = {
      config: await config.commit(
        { ...(await openForCases(config, guest, hosts)), ...extra },
        'What cases change',
      ),
      dotfiles: await dotfiles.commit(dotfilesAtFirst, 'Start'),
    }
    const of = `${start.config.slice(0, 12)}-${start.dotfiles.slice(0, 12)}`
    // the same commits on another branch are another template
    const dir = join(
      worlds,
      `start-${of}${branch === 'main' ? '' : `-${branch.replaceAll('/', '-')}`}`,
    )
    if (!existsSync(dir)) renameSync(scratch, dir)
    return { dir, guest, ...start, branch, paths }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Makes a new world for these guests from the template, and serves it to them at git://10.0.3.100 at once. */
export function openWorld(id: string, from: Template, hosts: string[]): World {
  const dir = join(dirname(from.dir), id)
  rmSync(dir, { recursive: true, force: true })
  cpSync(from.dir, dir, { recursive: true })
  for (const host of hosts) {
    serve(dir, host)
    serveStore(host, from.guest.kind)
  }
  const { branch, guest, paths } = from
  const config = remote(join(dir, 'config.git'), branch)
  // as the guest's agent asks for it, so that the flake sees the same revision of itself on both sides
  const flake = (commit = from.config): string =>
    `git+file://${config.dir}?ref=refs/heads/${branch}&rev=${commit}`
  return {
    id,
    dir,
    config,
    branch,
    paths,
    dotfiles: remote(join(dir, 'dotfiles.git'), branch),
    start: { config: from.config, dotfiles: from.dotfiles },
    flake,
    host: async (name, commit = branch, store = []) =>
      readHost(name, guest.attribute, store, flake((await config.commits(commit))[0])),
  }
}

/** Stops serving worlds to these guests; they get the lab's own remotes again, where there are any. */
export function closeWorlds(hosts: string[]): void {
  for (const host of hosts) if (!serveLab(host)) serveNothing(host)
}

async function bare(dir: string, branch: string): Promise<Remote> {
  await git(['init', '--quiet', '--bare', `--initial-branch=${branch}`, dir])
  return remote(dir, branch)
}

/** Writes the flake's tracked files to a remote; of this project only those of its flake. @returns the tree's id */
async function takeFlake(config: Remote): Promise<string> {
  const flake = flakeDirectory()
  const own = flake === project ? ['flake.nix', 'flake.lock', 'hosts', 'nix'] : []
  const listed = await git(['-C', flake, 'ls-files', '-z', '--', ...own]).catch(
    (cause: unknown) => {
      throw new Failure(`Cannot make a remote from \`${flake}\`: git does not track it`, { cause })
    },
  )
  // lab.toml belongs to the lab: a promise that is edited in it must not change the hosts
  const files = listed.split('\0').filter((file) => file && file !== 'lab.toml')
  if (files.some((file) => file.startsWith(`${ownFiles}/`))) {
    throw new Failure(`Cannot make a remote from \`${flake}\`: it has \`${ownFiles}\` itself`, {
      hint: 'Cases write their changes there: give yours another name',
    })
  }
  return config.take(flake, files)
}

/** The changes that give each of these hosts a module of its own for cases, which is empty at first. */
async function openForCases(config: Remote, { kind }: Guest, hosts: string[]): Promise<Changes> {
  const path = join(flakeDirectory(), 'flake.nix')
  const text = (name: string): string => readFileSync(join(project, 'nix/lab', name), 'utf8')
  return {
    'flake.nix': await throughOutputs(
      path,
      (await config.read('flake.nix')) ?? '',
      `import ./${ownFiles}`,
    ),
    [`${ownFiles}/default.nix`]: text('cases/default.nix'),
    [`${ownFiles}/host.nix`]: text('cases/host.nix'),
    [`${ownFiles}/remotes.nix`]: text('remotes.nix'),
    [`${ownFiles}/guest.nix`]: text(`cases/${kind}.nix`),
    [`${ownFiles}/all.nix`]: '{ }\n',
    ...(kind === 'nixos' && {
      ...Object.fromEntries(
        ['foreign.nix', 'vm.nix', 'disk.nix', 'disko.nix'].map((name) => [
          `${ownFiles}/${name}`,
          text(name),
        ]),
      ),
      [`${ownFiles}/by-disko.nix`]: `[ ${byDisko(hosts).join(' ')} ]\n`,
    }),
    ...Object.fromEntries(hosts.map((host) => [hostModule(host), '{ }\n'])),
  }
}

/** Hosts whose VM has the disk layout of their own disko, as Nix strings. */
const byDisko = (hosts: string[]): string[] =>
  hosts.filter((host) => readVm(host)?.disko).map((host) => JSON.stringify(host))

/** Lines far enough apart to be edited on two hosts without a conflict. */
const lines = (name: string): string =>
  Array.from({ length: 24 }, (_, index) => `${name} ${index + 1}\n`).join('')

const dotfilesAtFirst: Changes = {
  dot_labrc: lines('line'),
  'dot_config/lab/one.conf': lines('one'),
  'dot_config/lab/two.conf': lines('two'),
}
