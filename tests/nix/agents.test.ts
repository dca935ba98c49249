import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { parseShell } from '../../lib/mutation/bash.ts'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { findNixOS, lab } from './evaluate.ts'

const agents = join(project, 'nix/agents')

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'lab-agents-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  return directory
}

test('Agents pass shellcheck', async () => {
  const files = readdirSync(agents).map((file) => join(agents, file))
  expect(files.length).toBeGreaterThan(3)
  await run('shellcheck', files)
})

// An arithmetic error aborts the whole top-level command in bash, and the script goes on with the next one: an
// `|| fail` around it is skipped.
test('No arithmetic expression contains a command that could fail and leave a gap', () => {
  const sums = readdirSync(agents).flatMap((file) =>
    readFileSync(join(agents, file), 'utf8')
      .split('\n')
      .filter((line) => /\(\([^)]*\$\((?!\()/.test(line.replace(/(^|\s)#.*/, ''))),
  )
  expect(sums.length).toBeGreaterThan(3)
  for (const line of sums) expect(line).toMatch(/\(\([^)]*\$\([^()]* \|\| (echo 0|date \+%s)\)/)
})

// Debian 12 has ShellCheck 0.9. nixpkgs builds each agent with 0.11, which has a separate code for functions that
// only a trap or another file calls; a host does not build if ShellCheck complains about an agent.
test('Directives for functions that are called indirectly have the codes of old and new ShellCheck', () => {
  const said = readdirSync(agents).flatMap((file) =>
    readFileSync(join(agents, file), 'utf8')
      .split('\n')
      .filter((line) => /^\s*# shellcheck disable=.*SC23(17|29)/.test(line)),
  )
  expect(said.length).toBeGreaterThan(3)
  for (const line of said) expect(line).toMatch(/SC2317,SC2329/)
})

/** Nix function: host -> text of each wrapped agent, by name. */
const wrapped = `host: let
  c = (host.extendModules { modules = [ { myModules.services.chezmoiSync.enable = true; } ]; }).config;
  agents = builtins.filter (p: p ? text && p.meta.mainProgram or "" == p.name) c.environment.systemPackages;
in builtins.listToAttrs (map (p: { inherit (p) name; value = builtins.unsafeDiscardStringContext p.text; }) agents)`
const names = [
  'chezmoi-restore-kept',
  'chezmoi-show-conflicts',
  'chezmoi-status',
  'chezmoi-sync',
  'golden-arm-trial',
  'golden-boot-validation',
  'nix-local-upgrade',
  'pin-golden',
  'rollback-to-golden',
  'show-boot-status',
  'show-golden',
  'unpin-golden',
]

/** The checks that the modules exclude in nixpkgs. */
const excluded = (name: string): string =>
  /golden|boot-status/.test(name) ? 'SC2034,SC2154' : 'SC2089,SC2090'

async function checkWrapped(scripts: Record<string, string>): Promise<void> {
  const directory = scratch()
  for (const name of names) {
    const functions = [...scripts[name]!.matchAll(/^([a-z_]+)\(\) \{/gm)].map(([, each]) => each)
    // the last of two functions with one name would replace the other
    expect(functions.filter((each, at) => functions.indexOf(each) !== at)).toEqual([])
    writeFileSync(join(directory, name), scripts[name]!)
    // nixpkgs runs shellcheck when it builds the wrapper, so a finding would keep a host from building
    await run('shellcheck', [`--exclude=${excluded(name)}`, join(directory, name)])
  }
}

test('Agents pass shellcheck as the lab wraps them', async () => {
  await checkWrapped(await lab('sorrow', wrapped))
}, 300_000)

test('Agents pass shellcheck as NixOS wraps them', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  await checkWrapped(await found.nixos('sorrow', wrapped))
}, 300_000)

/** The programs that agents call, by Debian package. */
const programs: Record<string, string[]> = {
  bash: ['bash'],
  chezmoi: ['chezmoi'],
  coreutils:
    `cat chmod comm cp cut date dd df dirname du env head id ln mkdir mktemp mv paste printf readlink realpath rm
    rmdir sha256sum sleep sort stat sync tail tee timeout tr uname wc`.split(/\s+/),
  diffutils: ['cmp'],
  findutils: ['find', 'xargs'],
  git: ['git'],
  grep: ['grep'],
  iproute2: ['ip', 'tc'],
  jq: ['jq'],
  jujutsu: ['jj'],
  'nix-bin': ['nix', 'nix-env', 'nix-store'],
  // called by git
  'openssh-server': ['ssh'],
  sed: ['sed'],
  systemd: ['bootctl', 'busctl', 'systemctl'],
  tar: ['tar'],
  'util-linux': ['flock', 'mountpoint', 'runuser', 'unshare'],
}
const builtins = new Set(
  `"$@" : [ alias break cd command compgen continue coproc echo eval exec exit kill mapfile printf pwd read return set
  shift shopt trap true umask wait`.split(/\s+/),
)
/** Words that the grammar mistakes for commands, and a command of another module. */
const misread: Record<string, string[]> = {
  'golden-boot-validation': ['link'],
  'nix-local-upgrade': ['else', 'link', 'golden-boot-validation'],
  'pin-golden': ['link'],
}

/** The program names that are not common English words. */
const byName = new Set(Object.values(programs).flat())
for (const word of ['cat', 'cut', 'date', 'find', 'head', 'id', 'sleep', 'sort', 'sync', 'tail']) {
  byName.delete(word)
}

test('Each agent brings the programs that it calls, and no unused package', async () => {
  const scripts = Object.entries(await lab<Record<string, string>>('sorrow', wrapped))
  const used = new Map<string, Set<string>>()
  for (const [name, text] of scripts) {
    const [, packages] = /^export PATH="(.*):\$PATH"$/m.exec(text)!
    const brought = packages!.split(':').map((path) => path.split('/').at(-2)!)
    const has = new Set(brought.flatMap((one) => programs[one] ?? [`nothing known of ${one}`]))
    const root = await parseShell(text)
    const functions = new Set(
      root
        .descendantsOfType('function_definition')
        .map((one) => one!.childForFieldName('name')!.text),
    )
    const words = text.replaceAll(/^\s*#.*/gm, '').match(/[\w-]+/g)!
    if (words.includes('git')) words.push('ssh')
    const lacks = root
      .descendantsOfType('command_name')
      .map((one) => text.slice(one!.startIndex, one!.endIndex))
      // literal program names only, not variables or arithmetic
      .filter((word) => /^[a-z][a-z0-9-]+$/.test(word))
      // programs that are started by another program or from a list
      .concat(words.filter((word) => byName.has(word)))
      .filter((word) => !has.has(word) && !functions.has(word) && !builtins.has(word))
    expect([name, ...new Set(lacks)]).toEqual([name, ...(misread[name] ?? [])])
    // agents of one module share their packages
    const all = used.get(packages!) ?? new Set()
    for (const word of words) all.add(word)
    used.set(packages!, all)
  }
  expect(used.size).toBe(3)
  for (const [packages, words] of used) {
    const idle = packages
      .split(':')
      .map((path) => path.split('/').at(-2)!)
      .filter((one) => !programs[one]!.some((program) => words.has(program)))
    expect(idle).toEqual([])
  }
}, 300_000)

test('Agents look for kernels where the boot loader keeps them, even on a separate partition', async () => {
  const wherever = wrapped.replace(
    'modules = [',
    `modules = [ ({ lib, ... }: {
      options.boot.loader.systemd-boot.xbootldrMountPoint = lib.mkOption { default = "/boot-of-its-own"; };
    })`,
  )
  const scripts = await lab<Record<string, string>>('sorrow', wherever)
  expect(scripts['nix-local-upgrade']).toMatch(/^UPGRADE_BOOT=\/boot-of-its-own$/m)
  // the configuration has no mount there
  expect(scripts['nix-local-upgrade']).toMatch(/^UPGRADE_BOOT_MOUNTED=false$/m)
  expect(scripts['show-golden']).toMatch(/^GOLDEN_BOOT=\/boot-of-its-own$/m)
  expect(scripts['show-golden']).toMatch(/^GOLDEN_ESP=\/boot$/m)
}, 300_000)

test('With GRUB this is not the EFI system partition, which may be too small for a kernel', async () => {
  const grub = wrapped.replace(
    'modules = [',
    `modules = [ ({ lib, ... }: {
      boot.loader.grub = { enable = true; mirroredBoots = [ { path = "/boot"; } ]; };
      boot.loader.efi.efiSysMountPoint = lib.mkForce "/boot/efi";
    })`,
  )
  const scripts = await lab<Record<string, string>>('sorrow', grub)
  expect(scripts['nix-local-upgrade']).toMatch(/^UPGRADE_BOOT=\/boot$/m)
  expect(scripts['nix-local-upgrade']).toMatch(/^UPGRADE_BOOT_MOUNTED=true$/m)
}, 300_000)

test('The state of a sync is not removed by age', async () => {
  const rules = await lab<string[]>(
    'sorrow',
    `host: (host.extendModules { modules = [ { myModules.services.chezmoiSync.enable = true; } ]; })
      .config.systemd.tmpfiles.rules`,
  )
  const [mode, owner, group, age] = rules
    .find((rule) => rule.startsWith('d /var/lib/chezmoi-sync '))!
    .split(/\s+/)
    .slice(2)
  expect([mode, owner, group, age]).toEqual(['0755', 'rain', '-', '-'])
}, 300_000)

test('Hooks, checks and the scripts of users have the PATH of a login', async () => {
  const paths = await lab<Record<'upgrade' | 'sync', string[]>>(
    'sorrow',
    `host: let
      c = (host.extendModules { modules = [ { myModules.services.chezmoiSync.enable = true; } ]; }).config;
    in builtins.mapAttrs (_: map toString) {
      upgrade = c.systemd.services.nix-local-upgrade.path;
      sync = c.systemd.services.chezmoi-pre-update.path;
    }`,
  )
  // setuid wrappers come first, as in a login
  const login = ['/run/wrappers', '/run/current-system/sw']
  expect(paths.upgrade).toEqual(login)
  const own = ['/home/rain/.nix-profile', '/home/rain/.local/state/nix/profile']
  expect(paths.sync).toEqual([login[0], ...own, '/etc/profiles/per-user/rain', login[1]])
}, 300_000)

test('On NixOS hooks and checks run in a shell, with the PATH of a login', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const read = await found.nixos<Record<'agent' | 'upgrade' | 'sync', string>>(
    'sorrow',
    `host: let
      c = (host.extendModules { modules = [ { myModules.services.chezmoiSync.enable = true; } ]; }).config;
      agent = builtins.head (builtins.filter (p: p.name or "" == "nix-local-upgrade") c.environment.systemPackages);
    in builtins.mapAttrs (_: builtins.unsafeDiscardStringContext) {
      agent = agent.text;
      upgrade = c.systemd.services.nix-local-upgrade.environment.PATH;
      sync = c.systemd.services.chezmoi-pre-update.environment.PATH;
    }`,
  )
  // a NixOS unit has no shell on its PATH, and the agent calls one by name
  expect(read.agent).toMatch(/^export PATH="\S*-bash-[^/:]+\/bin:/m)
  for (const path of [read.upgrade, read.sync].map((text) => text.split(':'))) {
    expect(path).toContain('/run/current-system/sw/bin')
    expect(path).toContain('/run/wrappers/bin')
  }
  expect(read.sync.split(':')).toContain('/etc/profiles/per-user/rain/bin')
}, 300_000)

test('A setting that the host’s Nix does not know is not written', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const read = await found.nixos<Record<string, boolean>>(
    'sorrow',
    `host: let
      known = module: (host.extendModules { modules = [ module ]; }).config.nix.settings ? fsync-store-paths;
    in {
      nix = known { };
      lix = known ({ lib, pkgs, ... }: { nix.package = lib.mkForce pkgs.lix; });
      old = known ({ lib, pkgs, ... }: { nix.package = lib.mkForce (pkgs.nix // { version = "2.24.9"; }); });
    }`,
  )
  expect(read).toEqual({ nix: true, lix: false, old: false })
}, 300_000)

test('The flake checks its Nix files with its formatter', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const format = readFileSync(join(project, 'nix/format.nix'), 'utf8')
  const read = await found.nixos<Record<'formatter' | 'check' | 'nixfmt' | 'drv', string>>(
    'sorrow',
    `{ pkgs, ... }: let made = (${format}) { inherit pkgs; self = "/source"; }; in
    builtins.mapAttrs (_: builtins.unsafeDiscardStringContext) {
      formatter = made.formatter.text;
      check = made.check.buildCommand;
      nixfmt = "\${builtins.head made.check.nativeBuildInputs}";
      drv = made.check.drvPath;
    }`,
  )
  expect(read.formatter).toContain(`${read.nixfmt}/bin:`)
  expect(read.check).toContain('-exec nixfmt --check {} +')
  // both must exclude the same files
  expect(read.formatter).toContain(':!tests/flakes')
  expect(read.check).toContain("-not -path './tests/flakes/*'")
}, 300_000)
