import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS, hosts, lab, refusal, store } from './evaluate.ts'

/** The values that Task 5 of the plan requires, as one function of a host. */
const planned = `host: {
  inherit (host.config.modules.services) desktop cli networking;
  autoUpgrade = host.config.myModules.services.autoUpgrade.enable;
  golden = host.config.myModules.system.boot.goldenGeneration.enable;
  inherit (host.config.networking) hostName;
}`
const expected = {
  desktop: [],
  cli: ['atuin'],
  networking: ['openssh', 'ssh', 'syncthing', 'tailscale'],
  autoUpgrade: true,
  golden: true,
}

/** labSystem of sorrow with an additional module. */
const sorrow = (module: string): string =>
  `(lab.labSystem { hostname = "sorrow"; modules = [ (${module}) ]; })`

describe.each(hosts)('%s', (host) => {
  test('has the values that the plan expects', async () => {
    expect(await lab(host, planned)).toEqual({ ...expected, hostName: host })
  })

  test('has them on NixOS, with no failed assertion and no warning', async (context) => {
    const found = await findNixOS()
    if ('missing' in found) return context.skip(found.missing)
    const read = await found.nixos<Record<string, unknown>>(
      host,
      `host: {
        planned = (${planned}) host;
        failed = map (a: a.message) (builtins.filter (a: !a.assertion) host.config.assertions);
        inherit (host.config) warnings;
        toplevel = host.config.system.build.toplevel.drvPath;
      }`,
    )
    expect(read).toEqual({
      planned: { ...expected, hostName: host },
      failed: [],
      warnings: [],
      toplevel: expect.stringContaining(`nixos-system-${host}-`),
    })
  }, 300_000)

  test('reports what the embedded guest cannot have', async () => {
    const { unavailable, unavailableUnits } = await lab<Record<string, Record<string, string>>>(
      `${host}.config.lab`,
    )
    expect(unavailable).toMatchObject({
      tailscale: 'Debian carries no tailscale',
      sops: 'Debian carries no sops',
    })
    expect(unavailableUnits).toHaveProperty('tailscaled.service')
    expect(unavailable).not.toHaveProperty('openssh')
  })
})

test('The lab evaluates with no network', async (context) => {
  const alone = ['--user', '--map-root-user', '--net']
  const { code } = await run('unshare', [...alone, 'true'], { allow: [1] })
  if (code !== 0) return context.skip('unshare cannot make a network namespace here')
  const directory = store()
  // the namespace has no build users' group
  const settings = ['--option', 'build-users-group', '', '--extra-experimental-features']
  settings.push('nix-command flakes')
  const attribute = '.#labConfigurations.sorrow.config.networking.hostName'
  const { stdout } = await run(
    'unshare',
    [...alone, 'nix', ...settings, 'eval', ...directory, '--json', attribute],
    // an empty cache, so that nothing fetched earlier can be used
    { cwd: project, env: { XDG_CACHE_HOME: join(directory[1]!, 'cache') } },
  )
  expect(JSON.parse(stdout)).toBe('sorrow')
})

describe('A declared service turns on its NixOS options', () => {
  const on = `c: [ c.services.openssh.enable c.services.syncthing.enable c.services.tailscale.enable c.programs.atuin.enable (c.programs.ssh.extraConfig != "") ]`

  test('for each name of the list', async () => {
    expect(await lab('sorrow', `host: (${on}) host.config`)).toEqual([true, true, true, true, true])
    const none =
      '{ lib, ... }: { modules.services.networking = lib.mkForce [ ]; modules.services.cli = lib.mkForce [ ]; }'
    expect(await expression(`(${on}) ${sorrow(none)}.config`)).toEqual([
      false,
      false,
      false,
      false,
      false,
    ])
  })

  test.each([
    ['modules.services.networking = [ "opensshd" ]', '"openssh", "ssh", "syncthing", "tailscale"'],
    ['modules.services.cli = [ "fish" ]', '"atuin"'],
    ['roles = [ "server" ]', '"vm"'],
    [
      'myModules.services.autoUpgrade.onValidationFailure = "hope"',
      '"rollback", "notify", "ignore"',
    ],
  ])('and %s is refused, naming the known values', async (setting, known) => {
    const said = await refusal(`${sorrow(`{ ${setting}; }`)}.config.${setting.split(' ')[0]}`)
    expect(said).toContain(known)
  })

  test('and SSH allows only keys', async () => {
    const settings = await lab<Record<string, unknown>>('sorrow.config.services.openssh.settings')
    expect(settings).toMatchObject({
      PasswordAuthentication: false,
      KbdInteractiveAuthentication: false,
      PermitRootLogin: 'prohibit-password',
    })
  })
})

describe('The role vm', () => {
  test('is not headless on a host that lists a desktop', async () => {
    const host = `{ hostSpec = { hostName = "x"; primaryUsername = "me"; }; roles = [ "vm" ]; modules.services.desktop = [ "hyprland" ]; modules.services.networking = [ "openssh" ]; }`
    const read = `let c = (lab.labSystem { hostname = "x"; host = ${host}; }).config; in { inherit (c.modules.services) desktop networking cli; hyprland = c.programs.hyprland.enable; inherit (c.lab) unavailable; }`
    expect(await expression(read)).toMatchObject({
      desktop: ['hyprland'],
      networking: ['openssh'],
      cli: ['atuin'],
      hyprland: true,
      unavailable: { hyprland: 'the guest has no display' },
    })
  })

  test('keeps its consoles and modules when a host adds others', async () => {
    const added = '{ boot.kernelParams = [ "quiet" ]; boot.initrd.kernelModules = [ "nvme" ]; }'
    const read = `let inherit (${sorrow(added)}.config) boot; in { inherit (boot) kernelParams; initrd = boot.initrd.kernelModules; }`
    const { kernelParams, initrd } = await expression<Record<string, string[]>>(read)
    expect(kernelParams).toEqual(
      expect.arrayContaining(['console=tty1', 'console=ttyS0,115200', 'quiet']),
    )
    expect(initrd).toEqual(expect.arrayContaining(['nvme', 'virtio_blk']))
  })
})

describe('labSystem', () => {
  test('reports a service that it does not know as unavailable', async () => {
    const host = `{ hostSpec = { hostName = "x"; primaryUsername = "me"; };
      services.nginx = { enable = true; virtualHosts.a = { }; }; services.redis.enable = false; virtualisation.docker.enable = true; }`
    const read = `(lab.labSystem { hostname = "x"; host = ${host}; }).config.lab.unavailable`
    expect(await expression(read)).toEqual({
      nginx: 'the lab does not know `services.nginx`',
      docker: 'the lab does not know `virtualisation.docker`',
    })
  })

  test('stops at a failed assertion, with its message', async () => {
    const remote = '{ lib, ... }: { myModules.services.autoUpgrade.mode = lib.mkForce "remote"; }'
    expect(await refusal(`${sorrow(remote)}.config.system.build.toplevel.drvPath`)).toContain(
      '`myModules.services.autoUpgrade.flakeUrl` must be set when `mode` is "remote"',
    )
  })

  test.each([
    ['git+ssh://git@example.org/config?ref=production', true],
    ['git+ssh://git@example.org/config?dir=hosts&rev=0123', true],
    ['git+ssh://git@example.org/config?dir=preferences', false],
    ['github:me/config?ref=production', false],
  ])(
    'a flake of a repository names no branch beside the one that is followed: %s',
    async (url, refused) => {
      const remote = `{ lib, ... }: { myModules.services.autoUpgrade = { mode = lib.mkForce "remote"; flakeUrl = "${url}"; }; }`
      const read = `map (a: a.message) (builtins.filter (a: !a.assertion) ${sorrow(remote)}.config.assertions)`
      const failed = await expression<string[]>(read)
      expect(failed.some((message) => message.includes('must not have `ref=` or `rev=`'))).toBe(
        refused,
      )
    },
  )

  test("takes another flake's host, and can be extended", async () => {
    const host = '{ hostSpec = { hostName = "mine"; primaryUsername = "me"; }; }'
    const read = `((lab.labSystem { hostname = "mine"; host = ${host}; }).extendModules { modules = [ { services.mine.level = 3; } ]; }).config.services.mine`
    expect(await expression(read)).toEqual({ level: 3 })
  })
})

test('A check of a unit that the guest cannot have is reported as n/a, not run', async () => {
  const text = await lab<string>(
    'sorrow',
    `host: (builtins.head (builtins.filter (p: p.name == "nix-local-upgrade") host.config.environment.systemPackages)).text`,
  )
  const list = (name: string): unknown =>
    JSON.parse(new RegExp(`^${name}='(.*)'$`, 'm').exec(text)?.[1] ?? 'null')
  expect(list('UPGRADE_CHECKS')).toEqual(['systemctl --quiet is-active sshd.service'])
  expect(list('UPGRADE_CHECKS_NA')).toEqual(['systemctl --quiet is-active tailscaled.service'])
})
