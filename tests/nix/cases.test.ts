/**
 * Every commit that a case makes, and every module that it builds in a guest, evaluates on top of the project's
 * flake: for the embedded guest, and for NixOS if that can be evaluated. The cases run against a stand-in guest
 * that answers yes to everything, and the test collects what they would push.
 */
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { throughOutputs } from '../../lib/flake/outputs.ts'
import type { Guest } from '../../lib/nix/guest.ts'
import { evaluate } from '../../lib/nix/nix.ts'
import type { Identity } from '../../lib/process.ts'
import type { Case, Scene } from '../../lib/scenario/family.ts'
import { hostModule, ownFiles } from '../../lib/scenario/host-module.ts'
import type { Machine } from '../../lib/scenario/machine.ts'
import type { Changes } from '../../lib/scenario/remote.ts'
import { labSubject } from '../../lib/scenario/subject-lab.ts'
import { template } from '../../lib/scenario/world.ts'
import { families } from '../../tasks/pipelines/families.ts'
import { files as vmFiles } from '../../lib/vm/vm.ts'
import { expression, findNixOS, store } from './evaluate.ts'

vi.mock('../../lib/fault/lease.ts', () => ({
  inject: async () => [{}],
  prove: async () => ({ holds: true, text: '' }),
  heal: async () => [''],
  list: async () => [],
  endFaults: async () => {},
}))
vi.mock(import('../../lib/vm/vm.ts'), async (original) => ({
  ...(await original()),
  qemuOf: () => ({ pid: 1 }) as Identity,
}))
vi.mock(import('../../lib/vm/served.ts'), async (original) => ({
  ...(await original()),
  answerWith: () => {},
  breakCache: () => {},
  serveStore: () => {},
}))
vi.mock(import('../../lib/nix/nix.ts'), async (original) => ({
  ...(await original()),
  realise: async () => [toplevel],
}))

const toplevel = `/nix/store/${'a'.repeat(32)}-nixos-system-sorrow`
const debian: Guest = { kind: 'debian', attribute: 'labConfigurations', reason: '' }
const nixos: Guest = { kind: 'nixos', attribute: 'nixosConfigurations', reason: '' }

let home: string
let recipients: string[]
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'cases-'))
  vi.stubEnv('LAB_HOME', join(home, 'lab'))
  vi.stubEnv('LAB_CACHE', join(home, 'cache'))
  const make = async (): Promise<string> => identityToRecipient(await generateX25519Identity())
  recipients = [await make(), await make()]
})
afterAll(() => {
  vi.unstubAllEnvs()
  execFileSync('chmod', ['-R', 'u+w', home])
  rmSync(home, { recursive: true })
})

/** The answers of a healthy guest to the commands that all cases use. */
function answer(command: string): string {
  const status = JSON.stringify({
    outcome: 'synced',
    reason: '',
    captured: [],
    applied: [],
    kept: [],
    conflicts: [],
    to: { toplevel },
  })
  if (/age-keygen/.test(command)) return recipients.join('\n')
  if (/date --utc/.test(command)) return '+0900\n21:00\n23:00'
  if (/date -d "\$at"/.test(command)) return '20:00\n22:00'
  if (/^cat \S+status\.json|^show-boot-status/.test(command)) return status
  return `0\n${status}`
}

function standIn(host: string, slot: number, guest: Guest, wrote: (text: string) => void): Machine {
  const status = {
    outcome: 'upgraded',
    reason: '',
    to: { toplevel, commit: '' },
    checks: [],
    notRestored: [],
  }
  const ran = async (command: string) => ({ stdout: answer(command), stderr: '', code: 0 })
  const made: Partial<Machine> = {
    host,
    vm: { host, slot, guest: guest.kind, user: 'rain' } as Machine['vm'],
    subject: labSubject,
    // almost no time; where it becomes an option it is rounded up to one second
    patience: 0.01,
    root: ran as Machine['root'],
    user: ran as Machine['user'],
    ask: async (command) => answer(command).trim(),
    askUser: async (command) => answer(command).trim(),
    agent: (async () => ({ stdout: JSON.stringify(status) })) as unknown as Machine['agent'],
    write: async (path, text) => void (path.endsWith('module.nix') && wrote(text)),
    spend: async (_, work) => work(),
    upgrade: (async () => ({ status, log: '' })) as unknown as Machine['upgrade'],
    status: (async () => status) as unknown as Machine['status'],
    until: async () => '',
    reboot: async () => 1,
    awaitBoot: async () => 1,
    running: async () => toplevel,
    bootId: async () => 'a boot',
  }
  const idle = async (): Promise<undefined> => undefined
  return new Proxy(made, {
    get: (known, name) => known[name as keyof Machine] ?? idle,
  }) as Machine
}

/** Runs a case against stand-ins. @returns the files in `world` of each commit, and each module built in a guest */
async function pushed(one: Case, guest: Guest): Promise<Record<string, string>[]> {
  const found: Record<string, string>[] = []
  const wrote = (text: string): void => void found.push({ [hostModule('sorrow')]: text })
  const vms = ['sorrow', 'torment'].map((host, at) => standIn(host, at + 1, guest, wrote))
  const dir = mkdtempSync(join(home, 'remote-'))
  // some cases remove this file for a while
  writeFileSync(join(dir, 'HEAD'), '')
  const nothing = async (): Promise<undefined> => undefined
  const remote = {
    dir,
    read: nothing,
    head: nothing,
    commits: async () => [],
    move: nothing,
    choose: nothing,
    archive: nothing,
  }
  const commit = async (changes: Changes): Promise<string> => {
    found.push(files(changes))
    return 'a commit'
  }
  const fault = { name: '', bit: () => {}, healed: () => {} }
  const scene = {
    ...{ vm: vms[0], other: vms[1], vms: one.hosts === 2 ? vms : vms.slice(0, 1) },
    ...{ subject: labSubject, golden: () => true, wanted: async () => toplevel },
    world: {
      config: { ...remote, commit },
      dotfiles: { ...remote, commit: async () => '' },
      ...{ branch: 'main', paths: { flake: '~/nix-config', dotfiles: '~/dotfiles' }, start: {} },
    },
    ...{ patience: 0, seed: 1, random: () => 0.3, start: () => toplevel, store: store() },
    ...{ check: () => true, must: () => {}, ends: () => {}, fault: () => fault },
    ...{ say: () => {}, event: () => {} },
  } as unknown as Scene
  await one.run(scene)
  return found
}

const files = (changes: Changes): Record<string, string> =>
  Object.fromEntries(
    Object.entries(changes).flatMap(([path, text]) =>
      typeof text === 'string' && path.startsWith(`${ownFiles}/`) ? [[path, text]] : [],
    ),
  )

/** Changes that no evaluation accepts, which cases push on purpose. */
const nonsense = [
  'nonsense\n',
  '{ environment.etc."lab-case".text = "two" }\n',
  '{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.coreutls; }\n',
]

/**
 * Writes a tree of the flake in which each change that a case makes to sorrow is a separate output.
 * @returns the names of the outputs, and the cases that change nothing
 */
async function gather(guest: Guest, tree: string): Promise<{ names: string[]; idle: string[] }> {
  const from = await template(guest, ['sorrow', 'torment'])
  const all = (await families()).flatMap(({ name, cases }) => cases.map((one) => ({ name, one })))
  const known = new Map<string, string>()
  const idle: string[] = []
  for (const { name, one } of all) {
    const changes = await pushed(one, guest)
    if (changes.length === 0) idle.push(`${name}/${one.name}`)
    for (const [at, change] of changes.entries()) {
      const module = change[hostModule('sorrow')]
      if (module === undefined || nonsense.includes(module) || known.has(module)) continue
      const output = `${name}-${one.name}-${at}`
      known.set(module, output)
      for (const [path, text] of Object.entries(change)) {
        put(join(tree, 'cases', output, path.slice(ownFiles.length + 1)), text)
      }
    }
  }
  const archive = execFileSync('git', [
    '--git-dir',
    join(from.dir, 'config.git'),
    'archive',
    'main',
  ])
  execFileSync('tar', ['--extract', '--directory', tree], { input: archive })
  const flake = join(tree, 'flake.nix')
  writeFileSync(
    flake,
    await throughOutputs(flake, readFileSync(flake, 'utf8'), 'import ./cases.nix'),
  )
  for (const output of known.values()) {
    put(join(tree, 'cases', output, 'guest.nix'), readFileSync(join(tree, ownFiles, 'guest.nix')))
  }
  // on a host that sets values itself that would otherwise be defaults
  put(
    join(tree, 'cases.nix'),
    `outputs: let
      inherit (outputs.${guest.attribute}) sorrow;
      said = {
        myModules.services.autoUpgrade = sorrow.config.myModules.services.autoUpgrade;
        myModules.system.boot.goldenGeneration = sorrow.config.myModules.system.boot.goldenGeneration;
      };
    in outputs // { cases = builtins.mapAttrs (name: _: (sorrow.extendModules {
      modules = [ said (./cases + "/\${name}/hosts/sorrow.nix") ];
    }).config.system.build.toplevel.drvPath) (builtins.readDir ./cases); }\n`,
  )
  execFileSync('git', ['-C', tree, 'init', '--quiet'])
  execFileSync('git', ['-C', tree, 'add', '.'])
  return { names: [...known.values()], idle }
}

function put(path: string, text: string | Buffer): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
}

const apply = (names: string[]): string =>
  `cases: { ${names.map((name) => `"${name}" = cases."${name}";`).join(' ')} }`

/** Names of changes that result in the same system as another change. */
function alike(made: Record<string, string>): string[] {
  const systems = Object.values(made)
  return Object.keys(made).filter((name) => systems.filter((one) => one === made[name]).length > 1)
}

describe('the changes that cases push', () => {
  test('evaluate for the embedded guest, and each results in a different system', async () => {
    const tree = mkdtempSync(join(home, 'debian-'))
    const { names, idle } = await gather(debian, tree)
    // these change things inside the guest, by commands
    expect(idle).toEqual([
      'auto-upgrade/untracked-file',
      'break-boot/golden-panics',
      'break-boot/golden-in-pieces',
      'chaos-network/reboot',
      // only dotfiles
      'concurrent-edits/different-files',
      'concurrent-edits/different-lines',
      'concurrent-edits/same-line',
      'concurrent-edits/offline',
      'concurrent-edits/removed-in-source',
      'concurrent-edits/edited-meanwhile',
      'concurrent-edits/put-aside',
      'concurrent-edits/taken-back',
      'concurrent-edits/other-kinds',
      'concurrent-edits/own-ways',
      'concurrent-edits/unfinished',
      'concurrent-edits/put-back',
      'concurrent-edits/sealed-conflict',
      'concurrent-edits/half-broken',
      'concurrent-edits/rewritten',
      'concurrent-edits/cloned-anew',
      'concurrent-edits/cut-off',
      'concurrent-edits/power-cut-at-end',
      'concurrent-edits/killed-as-published',
      'concurrent-edits/damaged',
      'concurrent-edits/not-tracked',
      'concurrent-edits/unknown-to-jj',
      'concurrent-edits/answers',
      'concurrent-edits/commands',
      'concurrent-edits/home-and-source',
      'concurrent-edits/same-second',
    ])
    const made = await evaluate<Record<string, string>>(tree, 'cases', apply(names), store())
    expect(Object.keys(made)).toHaveLength(names.length)
    expect(alike(made)).toEqual([])
  }, 600_000)

  test('apply to a NixOS host as its VM was deployed', async () => {
    const tree = mkdtempSync(join(home, 'world-'))
    // with the host's own disko layout
    const laid = { host: 'laid', uuid: randomUUID(), port: 1, disko: true }
    mkdirSync(vmFiles('laid').dir, { recursive: true })
    writeFileSync(vmFiles('laid').record, JSON.stringify(laid))
    const { dir } = await template(nixos, ['plain', 'other', 'vault', 'laid', 'left'])
    const git = ['--git-dir', join(dir, 'config.git'), 'archive', 'main', ownFiles]
    execFileSync('tar', ['--extract', '--directory', tree], { input: execFileSync('git', git) })
    rmSync(join(tree, ownFiles, 'hosts/left.nix'))
    // the number of modules that each host gets in addition
    const more = await expression<Record<string, number>>(`let
      fs = label: fsType: { device = "/dev/disk/by-label/\${label}"; inherit fsType; options = [ ]; };
      host = have: options: config: {
        inherit have options config;
        extendModules = { modules }: host (have ++ modules) options config;
      };
      disk = {
        boot.loader.systemd-boot.enable = true;
        fileSystems = { "/" = fs "root" "ext4"; "/boot" = fs "ESP" "vfat"; };
      };
    in builtins.mapAttrs (_: found: builtins.length found.have) (import ${tree}/${ownFiles} {
      nixosConfigurations = {
        plain = host [ ] { lab.vm = true; } disk;
        other = host [ ] { } disk;
        vault = host [ ] { } { boot.loader = { }; };
        laid = host [ ] { disko = true; } (disk // {
          disko.devices.disk.main.content = {
            type = "gpt";
            partitions.ESP = { type = "EF00"; content = null; };
          };
        });
        left = host [ ] { } { };
      };
    }).nixosConfigurations`)
    expect(more).toEqual({ plain: 2, other: 4, vault: 5, laid: 5, left: 0 })
  }, 300_000)

  test('evaluate on NixOS', async (context) => {
    const found = await findNixOS()
    if ('missing' in found) return context.skip(found.missing)
    const tree = mkdtempSync(join(home, 'nixos-'))
    const { names } = await gather(nixos, tree)
    const made: Record<string, string> = {}
    // several processes, because each keeps everything it has evaluated in memory
    for (let at = 0; at < names.length; at += 8) {
      const some = apply(names.slice(at, at + 8))
      Object.assign(made, await found.nixos<Record<string, string>>('', some, `${tree}#cases`))
    }
    expect(Object.keys(made)).toHaveLength(names.length)
    // NixOS counts boots by itself, so `counted` has the same systems there as two other cases
    expect(alike(made)).toEqual([
      'auto-upgrade-switched-meanwhile-0',
      'break-boot-panic-0',
      'break-boot-counted-0',
      'break-boot-counted-1',
    ])
  }, 3_600_000)
})
