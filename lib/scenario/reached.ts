import type { Case } from './family.ts'
import { module, noted, seen, upgrades } from './upgrade.ts'

const [nic, address] = ['labbr0', 'fd00:22::2']

/** A bridge on the network of the VMs, with only an IPv6 address. */
const bridge = `systemd.services.lab-bridge = {
    wantedBy = [ "multi-user.target" ];
    before = [ "golden-boot-validation.service" ];
    path = [ pkgs.iproute2 ];
    script = ''
      ip link add ${nic} type bridge
      ip link set lan master ${nic}
      ip link set ${nic} up
      ip address add ${address}/64 dev ${nic} nodad
    '';
    preStop = "ip link del ${nic}";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
    };
  };`

/** Drops incoming SSH on the bridge, and only there, for one version of IP. */
const drop = (protocol: 'ip' | 'ip6', first = ''): string => `systemd.services.lab-firewall = {
    wantedBy = [ "multi-user.target" ];
    after = [ "lab-bridge.service" ];
    before = [ "golden-boot-validation.service" ];
    path = [ pkgs.iproute2 ];
    script = ''
      ${first}
      tc qdisc add dev ${nic} clsact
      tc filter add dev ${nic} ingress protocol ${protocol.replace('6', 'v6')} u32 match ${protocol} protocol 6 0xff match ${protocol} dport 22 0xffff action drop
    '';
    preStop = "tc qdisc del dev ${nic} clsact; ip -4 address flush dev ${nic} || true";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
    };
  };`

/**
 * Hosts that are not reached at the IPv4 address of a network card. New settings of reachability count from the next
 * upgrade on.
 */
export const reached: Case[] = [
  {
    name: 'reached-otherwise',
    title:
      'a host is reached over a bridge, by IPv6, or as its own command decides: a good commit stays, and one that closes this way in is rolled back, though SSH is open elsewhere',
    promise: 'reach',
    own: true,
    limit: 600,
    run: async (scene) => {
      const { vm, world } = scene
      const deploy = async (
        message: string,
        settings: string,
        more: string,
        wanted: { outcome: string; reason?: RegExp } = { outcome: 'upgraded' },
      ) => {
        const options = `myModules.system.reachability = { ${settings} };`
        const text = `{ pkgs, lib, options, ... }: { ${options} ${bridge} ${more} }\n`
        await world.config.commit(module(vm, text), message)
        return upgrades(scene, vm, { waits: 60, ...wanted })
      }
      // overrides the lab's own setting
      const over = 'interfaces = lib.mkOverride 10 [ "eth+" "labbr+" ];'
      // the default interfaces; the firewall lets SSH in only over the bridge and the lab's own NIC
      const trusted = `interfaces = lib.mkOverride 10
        (lib.remove "mgmt" options.myModules.system.reachability.interfaces.default);`
      const firewall = `networking.firewall = { enable = lib.mkForce true;
        allowedTCPPorts = lib.mkForce [ ]; trustedInterfaces = [ "${nic}" ]; };`
      // of two addresses, the first is closed
      const first = drop('ip', `ip address add 10.22.99.1/24 dev ${nic}`)
      const ways = [
        ['A bridge', over, ''],
        ['A bridge that is trusted', trusted, `${firewall} ${first}`],
      ] as const
      for (const [message, settings, more] of ways) {
        await deploy(message, settings, `${noted(message)} ${more}`)
        await deploy('A way in that is closed', settings, `${noted('no')} ${drop('ip6')}`, {
          outcome: 'validation-failed',
          reason: new RegExp(
            `^this host cannot be reached: sshd does not answer at ${address}, port 22, over ${nic}`,
          ),
        })
        scene.check('the former commit runs again', message, await seen(vm))
      }
      const command = 'test ! -e /run/lab-away && grep -qvx four /etc/lab-case'
      const own = `${over} command = "${command}";`
      const unreached = `this host cannot be reached: \`${command}\` exited with 1`
      await deploy('A command', own, noted('three'))
      await deploy('A command that fails', own, noted('four'), {
        outcome: 'validation-failed',
        reason: new RegExp(`^${unreached}$`),
      })
      scene.check('the former commit runs after the command failed', 'three', await seen(vm))
      // a network that is down says nothing about the commit, so the commit is tried again
      await vm.root('touch /run/lab-away')
      await deploy('A command that succeeds', own, noted('five'), {
        outcome: 'validation-failed',
        reason: new RegExp(
          `^${unreached}; not held against the revision, as the host cannot be reached with the former system`,
        ),
      })
      await vm.root('rm /run/lab-away')
      const { to } = await upgrades(scene, vm, { outcome: 'upgraded', waits: 60 })
      scene.check('the commit runs once the command succeeds', 'five', await seen(vm))
      scene.ends(vm, to!.toplevel)
    },
  },
]
