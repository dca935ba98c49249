import { expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS, lab } from './evaluate.ts'

const settings = 'config: config.myModules.system.reachability.environment'
/** Nix function: host -> texts of the agents that check reachability. */
const agents = `host: builtins.listToAttrs (map (p: { inherit (p) name; value = builtins.unsafeDiscardStringContext p.text; })
  (builtins.filter (p: builtins.elem (p.name or "") [ "golden-boot-validation" "pin-golden" "nix-local-upgrade" ]) host.config.environment.systemPackages))`
const asks = {
  'golden-boot-validation': expect.stringMatching(/REACH_PORT=\S*22[\s\S]*\nreachable\(\) \{/),
  'pin-golden': expect.stringMatching(/REACH_PORT=\S*22[\s\S]*\nreachable\(\) \{/),
  'nix-local-upgrade': expect.stringMatching(/REACH_PORT=\S*22[\s\S]*\nreachable\(\) \{/),
}

test('For a VM of the lab, a boot and an upgrade check reachability over mgmt', async () => {
  expect(await lab('sorrow.config', settings)).toEqual({
    REACH_PORT: '22',
    REACH_INTERFACES: 'mgmt',
    REACH_TIMEOUT: '60',
    REACH_COMMAND: '',
  })
  expect(await lab('sorrow', agents)).toEqual(asks)
})

test('A host’s settings reach the agents, and nothing is checked if sshd is off', async () => {
  const set = (module: string): Promise<unknown> =>
    expression(
      `(${settings}) (lab.labSystem { hostname = "sorrow"; modules = [ (${module}) ]; }).config`,
    )
  const asked = '{ myModules.system.reachability = { command = "ping -c 1 hub"; timeout = 7; }; }'
  expect(await set(asked)).toMatchObject({ REACH_COMMAND: 'ping -c 1 hub', REACH_TIMEOUT: '7' })
  const none = '{ lib, ... }: { services.openssh.enable = lib.mkForce false; }'
  expect(await set(none)).toMatchObject({ REACH_PORT: '', REACH_COMMAND: '' })
  const off = '{ myModules.system.reachability = { enable = false; command = "true"; }; }'
  expect(await set(off)).toMatchObject({ REACH_PORT: '', REACH_COMMAND: '' })
  // the default: the interfaces on which its firewall lets SSH in, except lo
  const trusted = `{ lib, options, ... }: { networking.firewall.trustedInterfaces = [ "lo" "wg0" ];
    myModules.system.reachability.interfaces = lib.mkOverride 10 options.myModules.system.reachability.interfaces.default; }`
  expect(await set(trusted)).toMatchObject({ REACH_INTERFACES: 'wg0' })
})

test('On NixOS a host must be reached where its firewall lets SSH in', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const read = await found.nixos<Record<string, unknown>>(
    'sorrow',
    `host: let
      with' = module: (host.extendModules { modules = [ { lab.vm = false; } module ]; }).config;
      over = module: (with' module).myModules.system.reachability.interfaces;
      closed = more: { services.openssh.openFirewall = false; networking.firewall = more; };
    in {
      lab = (${settings}) host.config;
      plain = over { };
      moved = (with' { services.openssh.ports = [ 2022 ]; }).myModules.system.reachability.port;
      off = over { networking.firewall.enable = false; };
      closed = over (closed { });
      range = over (closed { allowedTCPPortRanges = [ { from = 20; to = 30; } ]; trustedInterfaces = [ "wg0" ]; });
      some = over (closed { interfaces.lan0.allowedTCPPorts = [ 22 ]; interfaces.wan0.allowedTCPPorts = [ 80 ]; });
      trusted = over (closed { trustedInterfaces = [ "tailscale0" ]; });
      after = host.config.systemd.services.golden-boot-validation.after;
      dhcpcd = host.config.networking.dhcpcd.wait;
      denied = host.config.networking.dhcpcd.denyInterfaces;
    }`,
  )
  expect(read).toEqual({
    lab: expect.objectContaining({ REACH_PORT: '22', REACH_INTERFACES: 'mgmt' }),
    plain: [],
    moved: 2022,
    off: [],
    // SSH is let in nowhere: checked over every card, and refused there
    closed: [],
    range: [],
    some: ['lan0'],
    trusted: ['tailscale0'],
    after: expect.arrayContaining(['sshd.service', 'firewall.service', 'nftables.service']),
    dhcpcd: 'background',
    denied: expect.arrayContaining(['reach-in', 'mgmt']),
  })
  expect(await found.nixos('sorrow', agents)).toEqual(asks)
}, 300_000)

test('A guest has the inputs of its inputs, each once', async () => {
  const inputs = `rec {
    self = throw "not looked at";
    nixpkgs = { outPath = "/nixpkgs"; inputs = { }; };
    tree = { outPath = "/tree"; };
    parts = { outPath = "/parts"; inputs = { inherit nixpkgs; lib = { outPath = "/lib"; inputs = { }; }; }; };
    home = { outPath = "/home"; inputs = { inherit nixpkgs parts; }; };
  }`
  const paths = await expression<string[]>(`let
    module = import ${project}/nix/modules/nixos/lab.nix {
      inherit (lab) lib; pkgs = { }; inputs = ${inputs}; config = { roles = [ "vm" ]; lab.vm = true; };
    };
    all = module.system.extraDependencies.content;
  in builtins.genList (builtins.elemAt all) 5`)
  expect(paths.toSorted()).toEqual(['/home', '/lib', '/nixpkgs', '/parts', '/tree'])
})
