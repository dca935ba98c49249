import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { inHome, labSettings, type LabSettings } from '../lab-settings.ts'
import type { DiskLayout } from '../image/nixos.ts'
import { evaluate, realise } from './nix.ts'
import { labFlake, project, type GuestKind } from '../settings.ts'
import { readVm } from '../vm/vm.ts'

/** What the lab needs to know of a host's configuration: `nix/lab/facts.nix` says where it stands. */
export interface Facts {
  hostName: string
  primaryUser: string
  desktop: string[]
  cli: string[]
  networking: string[]
  autoUpgradeEnable: boolean
  /** NixOS's own upgrades. */
  systemAutoUpgrade: boolean
  comin: boolean
  goldenEnable: boolean
  /** A systemd calendar expression. */
  schedule: string
  /** Units that a boot must bring up to count as good. */
  validateServices: string[]
  /** Services that the configuration declares, by the names of its lists. */
  declared: string[]
  /** The unit of each declared service that has one. */
  units: Record<string, string>
  /** Units of which no failure counts: `lab.toml`'s. */
  mayFail: string[]
  /** What this guest cannot have, with the reason. */
  unavailable: Record<string, string>
  syncthingAddress: string
  /** Files that sops-nix decrypts, with the owner and mode that they must have. */
  secrets: { path: string; owner: string; mode: string }[]
  /** The units of `lab.toml`, and whether the host has them, as a service and as a timer. */
  agents: Record<'upgrade' | 'sync' | 'golden', { unit: string; present: boolean; timer: boolean }>
  /** The primary user's. */
  home: string
  /** What the host's own configuration says of its clones; null where it has not our agents. */
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
  /** The guest that it was read for. */
  guest: GuestKind
  /** The disk that a NixOS host mounts; null where the lab cannot make one like it. */
  layout?: DiskLayout | null
}

/**
 * Reads a host's configuration in one evaluation. A NixOS host of another flake is read with what
 * the lab adds to it, which no file of that flake holds.
 * @param attribute `labConfigurations` or `nixosConfigurations`
 * @param disko whether it keeps the disk of its own disko, whatever that is; default: as its VM was made
 * @throws Failure with nix's own words
 */
export async function readHost(
  name: string,
  attribute: string,
  store: string[],
  flake = labFlake(),
  disko = readVm(name)?.disko ?? false,
): Promise<Host> {
  // of the lab's flake always: a world's tree need not have its lab.toml
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
 * What a host upgrades from against what `lab.toml` says: the lab's remotes and clones go by the latter.
 * @returns what is different and how to say it, or undefined
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

/** How the disk image of a NixOS host is wanted of disko. */
export interface ImageWanted {
  /** Bytes. */
  size: number
  /** Whether to build it without KVM. */
  emulated: boolean
}

/** Derivation of the program that makes the disk image of a NixOS host, by disko. @throws Failure */
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

/** The Nix function of nix/lab/foreign.nix with its arguments, all but the host. @param image by disko */
function prepared(image?: Partial<ImageWanted>): string {
  const size = image?.size === undefined ? 'null' : `"${Math.round(image.size / 1024 ** 2)}M"`
  const disko = `(${text('disko')}) { imageSize = ${size}; emulated = ${image?.emulated ?? false}; }`
  return `(${text('foreign')}) {
    vm = (${text('vm')});
    disk = (${text('disk')});
    disko = ${image ? disko : 'null'};
  }`
}

const text = (name: string): string => readFileSync(join(project, `nix/lab/${name}.nix`), 'utf8')

/** Builds the toplevels of hosts; what is built already costs nothing. @param say told the counts */
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
