/** The effects of options on a host's units and programs that a case in a VM would see only by chance. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression } from './evaluate.ts'

/** A part of sorrow's configuration, with an additional module. */
const read = <T>(module: string, body: string): Promise<T> =>
  expression<T>(
    `let inherit ((lab.labSystem { hostname = "sorrow"; modules = [ (${module}) ]; })) config;
      s = config.systemd.services; t = config.systemd.timers;
      text = name: (builtins.head (builtins.filter (p: p.name or "" == name) config.environment.systemPackages)).text;
    in ${body}`,
  )

test('The timer for reboots fires at the start of the reboot window', async () => {
  const night =
    '{ myModules.services.autoUpgrade = { allowReboot = true; rebootWindow = { lower = "01:00"; upper = "05:00"; }; }; }'
  expect(
    await read(night, '{ inherit (t.nix-local-upgrade-reboot) wantedBy timerConfig; }'),
  ).toEqual({
    wantedBy: ['timers.target'],
    timerConfig: { OnCalendar: '*-*-* 01:00', Persistent: true },
  })
})

test('An upgrade that the last boot cut off resumes after this boot, and one of this boot does not', async () => {
  const timer = 't.nix-local-upgrade-resume'
  const found = await read(
    '{ myModules.services.autoUpgrade.resumeDelay = "1h"; }',
    `{ inherit (${timer}) wantedBy unitConfig timerConfig; }`,
  )
  expect(found).toEqual({
    wantedBy: ['timers.target'],
    unitConfig: {
      ConditionPathExists: [
        '/var/lib/nix-local-upgrade/transaction.json',
        '!/run/nix-local-upgrade.lock',
      ],
    },
    timerConfig: { OnBootSec: '1h', Unit: 'nix-local-upgrade.service' },
  })
})

/** What the lab changes in the services of sorrow with these settings, so that its agents use the lab's remotes. */
const inLab = (services: string): Promise<unknown> =>
  expression(`let
      module = { lib, ... }: { myModules.services = { ${services} }; };
      host = lab.labSystem { hostname = "sorrow"; modules = [ module ]; };
      prepare = host: host.extendModules { modules = import ${project}/nix/lab/remotes.nix host; };
      modules = import ${project}/nix/lab/remotes.nix host;
      inherit ((prepare host).config.myModules.services) autoUpgrade chezmoiSync;
    in {
      changes = builtins.length modules;
      again = builtins.length (import ${project}/nix/lab/remotes.nix (prepare host));
      inherit (autoUpgrade) flakeUrl flakeDirectory;
      inherit (chezmoiSync) repoUrl;
    }`)

test('What a host is set to do without is read from its configuration', async () => {
  const facts = (services: string): Promise<unknown> =>
    expression(`let
        host = lab.labSystem { hostname = "sorrow"; modules = [ ({ lib, ... }: { myModules = { ${services} }; }) ]; };
        facts = import ${project}/nix/lab/facts.nix { user = null; units.sync = "my-sync"; flake = "~/x"; };
        found = facts host;
        without = facts (host // { options = { }; });
      in {
        inherit (found) rollsBack goldenEnable buildsFirst;
        clone = found.clones.flake;
        syncs = [ found.syncs without.syncs ];
      }`)
  const all = {
    ...{ rollsBack: true, goldenEnable: true, buildsFirst: true, clone: '/home/rain/nix-config' },
    syncs: [true, false],
  }
  expect(await facts('')).toEqual(all)
  for (const choice of ['notify', 'ignore'])
    expect(
      await facts(`services.autoUpgrade.onValidationFailure = lib.mkForce "${choice}";`),
    ).toEqual({ ...all, rollsBack: false })
  expect(await facts('services.autoUpgrade.buildBeforeSwitch = lib.mkForce false;')).toEqual({
    ...all,
    buildsFirst: false,
  })
  for (const option of ['enable', 'autoPinAfterBoot'])
    expect(await facts(`system.boot.goldenGeneration.${option} = lib.mkForce false;`)).toEqual({
      ...all,
      goldenEnable: false,
    })
  const remote = 'mode = lib.mkForce "remote"; flakeUrl = "github:me/config";'
  expect(await facts(`services.autoUpgrade = { ${remote} };`)).toEqual({ ...all, clone: null })
})

test('In a VM the agents use the remotes of the lab, with the flake at the top, where the host names others', async () => {
  const same = { changes: 0, again: 0, flakeUrl: null, flakeDirectory: '.', repoUrl: null }
  expect(await inLab('')).toEqual(same)
  const [config, dotfiles] = ['git+git://git.lab/config.git', 'git://git.lab/dotfiles.git']
  const changed = { ...same, changes: 1 }
  expect(
    await inLab(
      'autoUpgrade.flakeUrl = "github:me/config?dir=nixos"; autoUpgrade.mode = lib.mkForce "remote";',
    ),
  ).toEqual({ ...changed, flakeUrl: config })
  expect(await inLab('autoUpgrade.flakeDirectory = "nix/hosts";')).toEqual(changed)
  expect(await inLab('chezmoiSync.repoUrl = "git@example.org:me/dotfiles";')).toEqual({
    ...changed,
    repoUrl: dotfiles,
  })
  // what the host's own assertion refuses is left to it
  const refused = 'git+https://example.org/config?ref=live'
  expect(await inLab(`autoUpgrade.flakeUrl = "${refused}";`)).toEqual({
    ...same,
    flakeUrl: refused,
  })
})

test('By default a host rolls back when a check fails', async () => {
  const host =
    '{ hostSpec = { hostName = "x"; primaryUsername = "me"; }; myModules.services.autoUpgrade.enable = true; }'
  const path = 'config.myModules.services.autoUpgrade.onValidationFailure'
  const said = await expression(`(lab.labSystem { hostname = "x"; host = ${host}; }).${path}`)
  expect(said).toBe('rollback')
})

test('A switch does not restart the agents, and systemd stops an upgrade that hangs', async () => {
  const units = await read<Record<string, unknown>>(
    '{ }',
    `builtins.mapAttrs (_: u: { restart = u.restartIfChanged; limit = toString (u.serviceConfig.TimeoutStartSec or "none"); })
      { inherit (s) nix-local-upgrade chezmoi-pre-update golden-boot-validation; }`,
  )
  expect(units['nix-local-upgrade']).toEqual({ restart: false, limit: '21600' })
  const long = '{ myModules.services.autoUpgrade.buildTimeout = 86400; }'
  const limit = 's.nix-local-upgrade.serviceConfig.TimeoutStartSec'
  expect(await read<number>(long, limit)).toBeGreaterThan(86_400)
  expect(units['chezmoi-pre-update']).toEqual({ restart: false, limit: '2040' })
  expect(units['golden-boot-validation']).toMatchObject({ restart: false })
})

test('An upgrade by timer finds root’s git settings, such as credentials, as a manual one does', async () => {
  expect(await read('{ }', 's.nix-local-upgrade.environment.HOME')).toBe('/root')
})

test('A flake is evaluated by the Nix that the host configures', async () => {
  const programs = '{ upgrade = text "nix-local-upgrade"; golden = text "rollback-to-golden"; }'
  const found = await read<Record<string, string>>(
    '{ pkgs, ... }: { nix.package = pkgs.nix // { outPath = "/nix-of-its-own"; version = "2.99"; }; }',
    programs,
  )
  for (const text of Object.values(found)) {
    const [path] = /^export PATH=.*/m.exec(text)!
    expect(path).toContain('/nix-of-its-own/bin:')
    expect(path).not.toMatch(/\/nix\/bin/)
  }
})

test('A trial’s deadline survives `systemctl isolate`, and a validation has time for all its limits', async () => {
  const found = await read<{ timer: unknown; limit: number }>(
    `{ myModules.system.reachability.timeout = 1000;
      myModules.system.boot.goldenGeneration = { validationTimeout = 200; settleTime = 30; }; }`,
    `{ timer = t.golden-trial-deadline.unitConfig;
      limit = s.golden-boot-validation.serviceConfig.TimeoutStartSec; }`,
  )
  // otherwise `systemctl isolate` would stop it, like every unit that the target does not want
  expect(found.timer).toEqual({ DefaultDependencies: false, IgnoreOnIsolate: true })
  // the sum of its limits, and some time to write golden's files
  expect(found.limit).toBeGreaterThan(200 + 30 + 1000)
})

test('An upgrade does not sync dotfiles if that is turned off', async () => {
  const program = async (sync: boolean): Promise<string> =>
    read(
      `{ myModules.services.chezmoiSync.syncBeforeUpdate = ${sync}; }`,
      'text "nix-local-upgrade"',
    )
  expect(await program(true)).toMatch(/^UPGRADE_DOTFILES=chezmoi-pre-update.service$/m)
  expect(await program(false)).toMatch(/^UPGRADE_DOTFILES=(''|"")?$/m)
})

test('Settings for dotfiles reach all of their programs, and their unit runs as their owner', async () => {
  const settings = `{ myModules.services.chezmoiSync = { user = "me"; repoUrl = "git://x/y"; branch = "b"; autoCommit = false;
    autoPush = false; applyTimeout = 7; keepLimit = 9; networkTimeout = 8; }; }`
  const names = ['sync', 'status', 'show-conflicts', 'restore-kept']
  const programs = `map (name: text "chezmoi-\${name}") [ "${names.join('" "')}" ]`
  const values = (text: string): string[] =>
    text.match(/CHEZMOI_\w+=.*$/gm)!.map((line) => line.replaceAll(/['"]/g, ''))
  const said = [
    ...['CHEZMOI_APPLY_LIMIT=7', 'CHEZMOI_AUTO_COMMIT=false', 'CHEZMOI_AUTO_PUSH=false'],
    ...['CHEZMOI_BRANCH=b', 'CHEZMOI_HOST=sorrow', 'CHEZMOI_KEEP_LIMIT=9'],
    ...[
      'CHEZMOI_NETWORK_LIMIT=8',
      'CHEZMOI_REPO_URL=git://x/y',
      'CHEZMOI_STATE=/var/lib/chezmoi-sync',
      'CHEZMOI_UPGRADE_REPOSITORY=/home/rain/nix-config',
    ],
  ]
  for (const text of await read<string[]>(settings, programs)) {
    const found = values(text.slice(0, text.indexOf('# shellcheck')))
    expect(found.toSorted()).toEqual(said)
  }
  const unit = await read<Record<string, unknown>>(
    settings,
    `{ inherit (s.chezmoi-pre-update) before wants after; user = s.chezmoi-pre-update.serviceConfig.User;
      login = builtins.elem "/etc/profiles/per-user/me" (map toString s.chezmoi-pre-update.path);
      state = builtins.filter (rule: builtins.match ".*chezmoi.*" rule != null) config.systemd.tmpfiles.rules; }`,
  )
  expect(unit).toEqual({
    before: ['nix-local-upgrade.service'],
    wants: ['network-online.target'],
    after: ['network-online.target'],
    user: 'me',
    login: true,
    state: ['d /var/lib/chezmoi-sync 0755 me - -'],
  })
  const nothing = await read<string>('{ }', 'text "chezmoi-sync"')
  // empty: the repository's own remote is used
  expect(values(nothing)).toContain('CHEZMOI_REPO_URL=')
})

test('Boot completion, upgrades and reboots wait for the validation, and requested rescue modes are left alone', async () => {
  const found = await read<Record<string, string[]>>(
    '{ }',
    `{ inherit (s.golden-boot-validation) before requiredBy;
      words = s.golden-trial-deadline.unitConfig.ConditionKernelCommandLine; }`,
  )
  expect(found['requiredBy']).toEqual(['boot-complete.target'])
  expect(found['before']).toEqual([
    'boot-complete.target',
    'nix-local-upgrade.service',
    'nix-local-upgrade-reboot.service',
  ])
  // systemd(1): all words for rescue and emergency mode
  for (const word of ['emergency', '-b', 'rescue', 'single', 's', 'S', '1']) {
    expect(found['words']).toContain(`!${word}`)
  }
})

test('Reachability is checked at sshd’s configured port', async () => {
  const port = 'config.myModules.system.reachability.environment.REACH_PORT'
  const other = '{ lib, ... }: { services.openssh.ports = lib.mkForce [ 2022 ]; }'
  expect(await read(other, port)).toBe('2022')
})

test('Every category of secrets is checked before a switch, by a file that is kept with the system', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'lab-secrets-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  for (const path of ['nix/modules/nixos/secrets.nix', 'nix/agents/check-secrets.sh']) {
    cpSync(join(project, path), join(dir, path))
  }
  mkdirSync(join(dir, 'secrets'))
  for (const name of ['base', 'work']) writeFileSync(join(dir, `secrets/${name}.yaml`), 'x: y\n')
  const { text, kept } = await expression<{ text: string; kept: string[] }>(
    `let
      lib = (import ${project}/nix/lab/lib) // { getExe = toString; };
      m = import ${dir}/nix/modules/nixos/secrets.nix {
        inherit lib;
        config = { hostSpec = { secretCategories = [ "base" "none" "work" ]; primaryUsername = "rain"; }; sops.age.keyFile = "/k"; };
        pkgs = { writeShellApplication = _: "check-secrets"; age = 1; gawk = 1; gnugrep = 1; };
      };
      text = (m.config.content or m.config).system.preSwitchChecks.secrets;
    in { text = builtins.unsafeDiscardStringContext text; kept = builtins.attrNames (builtins.getContext text); }`,
  )
  expect(text).toMatch(/SECRETS_KEY=\/k check-secrets \S+base\.yaml \S+work\.yaml$/m)
  expect(kept.map((path) => path.replace(/^.*-/, '')).toSorted()).toEqual([
    'base.yaml',
    'work.yaml',
  ])
})
