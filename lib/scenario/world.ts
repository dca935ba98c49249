import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { flakeDirectory } from '../flake/directory.ts'
import { readHost, type Host } from '../nix/host.ts'
import { labSettings, type LabSettings } from '../lab-settings.ts'
import { serveLab } from '../vm/remotes.ts'
import { serve, serveNothing } from '../vm/served.ts'
import { hostModule } from './host-module.ts'
import { remote, git, type Changes, type Remote } from './remote.ts'
import { labHome, project } from '../settings.ts'

/**
 * What one or two guests have for their remote: `config.git`, the flake with their hosts, and
 * `dotfiles.git`, a chezmoi source directory. Both begin with the same commit in every world.
 */
export interface World extends Clones {
  id: string
  dir: string
  config: Remote
  dotfiles: Remote
  /** The commits that a baseline has cloned. */
  start: Start
  /** Evaluates a host as a commit of `config` has it. @throws Failure with nix's own words */
  host: (name: string, commit?: string, store?: string[]) => Promise<Host>
}

/** What guests have of the remotes, and where: `lab.toml`'s. */
export type Clones = Pick<LabSettings, 'branch' | 'paths'>

export interface Start {
  config: string
  dotfiles: string
}

/** What every world begins as; made once for what the flake and the lab's settings are. */
export interface Template extends Start, Clones {
  dir: string
}

/**
 * The template of the flake as it is on the disk now, tracked files only. The flake is left as it
 * is, under another name: what the lab adds for its agents lies on top of its `labConfigurations`.
 * Inputs are left out, as a guest reaches nothing but this very repository.
 * @param extra files on top, by path: a control's cut
 */
export async function template(hosts: string[], extra: Changes = {}): Promise<Template> {
  const { branch, paths } = await labSettings()
  const worlds = join(privateDirectory(labHome()), 'srv', '.worlds')
  mkdirSync(worlds, { recursive: true, mode: 0o700 })
  const scratch = mkdtempSync(join(worlds, 'new-'))
  try {
    const config = await bare(join(scratch, 'config.git'), branch)
    const dotfiles = await bare(join(scratch, 'dotfiles.git'), branch)
    const start = {
      config: await config.commit(
        { ...(await flakeFiles()), ...(await settings(hosts)), ...extra },
        'Start',
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
    return { dir, ...start, branch, paths }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** A new world for these guests, from the template; they find it at git://10.0.3.100 at once. */
export function openWorld(id: string, from: Template, hosts: string[]): World {
  const dir = join(dirname(from.dir), id)
  rmSync(dir, { recursive: true, force: true })
  cpSync(from.dir, dir, { recursive: true })
  for (const host of hosts) serve(dir, host)
  const { branch, paths } = from
  const config = remote(join(dir, 'config.git'), branch)
  return {
    id,
    dir,
    config,
    branch,
    paths,
    dotfiles: remote(join(dir, 'dotfiles.git'), branch),
    start: { config: from.config, dotfiles: from.dotfiles },
    host: async (name, commit = branch, store = []) => {
      const tree = mkdtempSync(join(tmpdir(), 'world-'))
      try {
        await config.checkout(commit, tree)
        return await readHost(name, 'labConfigurations', store, `path:${tree}`)
      } finally {
        rmSync(tree, { recursive: true })
      }
    },
  }
}

/** Ends what cases served these guests; they have the lab's own remotes again, where there are any. */
export function closeWorlds(hosts: string[]): void {
  for (const host of hosts) if (!serveLab(host)) serveNothing(host)
}

async function bare(dir: string, branch: string): Promise<Remote> {
  await git(['init', '--quiet', '--bare', `--initial-branch=${branch}`, dir])
  return remote(dir, branch)
}

/** The flake as git knows it; of this project only what its flake is made of. */
async function flakeFiles(): Promise<Changes> {
  const flake = flakeDirectory()
  const own = flake === project ? ['flake.nix', 'hosts', 'nix'] : []
  const listed = await git(['-C', flake, 'ls-files', '-z', '--', ...own]).catch(
    (cause: unknown) => {
      throw new Failure(`Cannot make a remote from \`${flake}\`: git does not track it`, { cause })
    },
  )
  const paths = listed.split('\0').filter((path) => path && existsSync(join(flake, path)))
  const files: Changes = {}
  for (const path of paths) files[path] = readFileSync(join(flake, path), 'utf8')
  const { 'flake.nix': origin, 'flake.lock': _, ...rest } = files
  return { ...rest, 'origin.nix': origin ?? '' }
}

async function settings(hosts: string[]): Promise<Changes> {
  return {
    'flake.nix': wrapper,
    'world/default.nix': readFileSync(join(project, 'nix/lab/world.nix'), 'utf8'),
    ...Object.fromEntries(hosts.map((host) => [hostModule(host), '{ }\n'])),
  }
}

const wrapper = `# The hosts of origin.nix, as the lab upgrades them.
{
  outputs =
    { self, ... }:
    let
      origin = import ./origin.nix;
      absent = name: _: throw "The guests of the lab reach no input of a flake, such as \\\`\${name}\\\`";
      given = origin.outputs (builtins.mapAttrs absent (origin.inputs or { }) // { self = self // outputs; });
      outputs = given // {
        labConfigurations = builtins.mapAttrs (
          host: system: system.extendModules { modules = [ ./world (./world/hosts + "/\${host}.nix") ]; }
        ) given.labConfigurations;
      };
    in
    outputs;
}
`

/** Lines far enough apart to be edited on two hosts without a conflict. */
const lines = (name: string): string =>
  Array.from({ length: 24 }, (_, index) => `${name} ${index + 1}\n`).join('')

const dotfilesAtFirst: Changes = {
  dot_labrc: lines('line'),
  'dot_config/lab/one.conf': lines('one'),
  'dot_config/lab/two.conf': lines('two'),
}
