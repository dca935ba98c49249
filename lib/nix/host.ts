import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { inHome, labSettings, type LabSettings } from '../lab-settings.ts'
import type { DiskLayout } from '../image/nixos.ts'
import { evaluate, realise } from './nix.ts'
import { labFlake, project, type GuestKind } from '../settings.ts'
import { readVm } from '../vm/vm.ts'

/** What the lab needs to know of a host's configuration; `nix/lab/facts.nix` reads it. */
export interface Facts {
  hostName: string
  primaryUser: string
  desktop: string[]
  cli: string[]
  networking: string[]
  autoUpgradeEnable: boolean
  /** Whether NixOS's own `system.autoUpgrade` is on. */
  systemAutoUpgrade: boolean
  comin: boolean
  /** Whether a generation that has booted well becomes golden. */
  goldenEnable: boolean
  /** Whether the host syncs dotfiles, or can be made to. */
  syncs: boolean
  /** Whether an upgrade is rolled back where a check fails; true where the host does not say. */
  rollsBack: boolean
  /** Whether an upgrade builds, and looks for room on /boot, before the switch; true where the host does not say. */
  buildsFirst: boolean
  /** A systemd calendar expression. */
  schedule: string
  /** Units that a boot must bring up to count as good. */
  validateServices: string[]
  /** Services that the configuration declares, as its lists name them. */
  declared: string[]
  /** The unit of each declared service that has one. */
  units: Record<string, string>
  /** Units whose failure does not count, from `lab.toml`. */
  mayFail: string[]
  /** What this guest cannot provide, with the reason. */
  unavailable: Record<string, string>
  syncthingAddress: string
  /** Files that sops-nix decrypts, with the owner and mode that they must have. */
  secrets: { path: string; owner: string; mode: string }[]
  /** The units named in `lab.toml`, and whether the host has them as a service and as a timer. */
  agents: Record<'upgrade' | 'sync' | 'golden', { unit: string; present: boolean; timer: boolean }>
  /** The primary user's home directory. */
  home: string
  /** The clones, by the host's own configuration; null where it does not have our agents. */
  clones: { branch: string | null; flake: string | null; dotfilesBranch: string | null }
  /** Such as `x86_64-linux`; null where the host does not say. */
  platform: string | null
}

export interface Host {
  name: string
  facts: Facts
  /** Store path of `system.build.toplevel`, known before it is built. */
  toplevel: string
  derivation: string
  /** The guest for which it was read. */
  guest: GuestKind
  /** The disk that a NixOS host mounts; null where the lab cannot make such a disk. */
  layout?: DiskLayout | null
}

/**
 * Reads a host's configuration in one evaluation. A NixOS host of another flake is read with what
 * the lab adds to it (nix/lab/foreign.nix), which no file of that flake contains.
 * @param attribute `labConfigurations` or `nixosConfigurations`
 * @param disko whether the host keeps the disk layout of its own disko; default: as its VM was made
 * @throws Failure with nix's own words
 */
export async function readHost(
  name: string,
  attribute: string,
  store: string[],
  flake = labFlake(),
  disko = readVm(name)?.disko ?? false,
): Promise<Host> {
  // always from the lab's flake: the tree of a world may have no lab.toml
  const { user, units, paths, mayFail } = await labSettings()
  const nixos = attribute === 'nixosConfigurations'
  const names = JSON.stringify(JSON.stringify({ user, units, flake: paths.flake }))
  const read = await evaluate<Omit<Host, 'name' | 'guest'>>(
    flake,
    `${attribute}.${name}`,
    `found: let host = ${nixos ? `${prepared(disko ? {} : undefined)} found` : 'found'}; in {
      facts = (${text('facts')}) (builtins.fromJSON ${names}) host;
      toplevel = host.config.system.build.toplevel.outPath;
      derivation = host.config.system.build.toplevel.drvPath;
      layout = ${nixos ? `(${text('disk')}) host.config` : 'null'};
    }`,
    store,
  )
  read.facts.mayFail = mayFail
  const { platform } = read.facts
  if (platform !== null && platform !== 'x86_64-linux') {
    throw new Failure(`Cannot make a VM of \`${name}\`: it is a host for ${platform}`, {
      hint: 'The lab emulates x86_64-linux: name the others, or set LAB_HOSTS',
    })
  }
  return { name, guest: nixos ? 'nixos' : 'debian', ...read }
}

/**
 * Compares what a host upgrades from with `lab.toml`, by which the lab makes its remotes and clones.
 * @returns a message about the first difference, or undefined
 */
export function disagreement(
  { facts, name }: Pick<Host, 'facts' | 'name'>,
  { branch, paths }: Pick<LabSettings, 'branch' | 'paths'>,
): string | undefined {
  const { clones, home } = facts
  const rows: [what: string, own: string | null, key: string, ours: string][] = [
    ['upgrades from the branch', clones.branch, 'branch', branch],
    ['syncs dotfiles by the branch', clones.dotfilesBranch, 'branch', branch],
    ['has its flake in', clones.flake, 'paths.flake', inHome(paths.flake, home)],
  ]
  const [wrong] = rows.filter(([, own, , ours]) => own !== null && own !== ours)
  if (!wrong) return undefined
  const [what, own, key, ours] = wrong
  return `\`${name}\` ${what} \`${own}\`, and \`${key}\` of lab.toml is \`${ours}\``
}

/** How disko is to make the disk image of a NixOS host. */
export interface ImageWanted {
  /** Bytes. */
  size: number
  /** Whether to build it without KVM. */
  emulated: boolean
}

/** The derivation of disko's program that makes the disk image of a NixOS host. @throws Failure */
export const readImageBuilder = (
  name: string,
  wanted: ImageWanted,
  flake = labFlake(),
): Promise<{ derivation: string; file: string }> =>
  evaluate(
    flake,
    `nixosConfigurations.${name}`,
    `found: let
      host = ${prepared(wanted)} found;
      disk = builtins.head (builtins.attrValues host.config.disko.devices.disk);
    in {
      derivation = host.config.system.build.diskoImagesScript.drvPath;
      file = "\${disk.imageName}.qcow2";
    }`,
    [],
  )

/** The Nix function of nix/lab/foreign.nix with all arguments but the host. @param image if disko makes the disk */
function prepared(image?: Partial<ImageWanted>): string {
  const size = image?.size === undefined ? 'null' : `"${Math.round(image.size / 1024 ** 2)}M"`
  const disko = `(${text('disko')}) { imageSize = ${size}; emulated = ${image?.emulated ?? false}; }`
  return `(${text('foreign')}) {
    vm = (${text('vm')});
    remotes = (${text('remotes')});
    disk = (${text('disk')});
    disko = ${image ? disko : 'null'};
  }`
}

const text = (name: string): string => readFileSync(join(project, `nix/lab/${name}.nix`), 'utf8')

/** Builds the toplevels of hosts; an existing build costs nothing. @param say receives the progress counts */
export const buildHosts = (
  hosts: Host[],
  store: string[],
  say?: (line: string) => void,
): Promise<string[]> =>
  realise(
    hosts.map(({ derivation }) => derivation),
    store,
    // a first build of NixOS fetches a few gigabytes
    { say, timeout: 4 * 3600 },
  )
