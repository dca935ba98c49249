/** The lab's udev rules for a NixOS guest, run by the guest's own udev: no event may lose a NIC's settings. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression } from '../nix/evaluate.ts'
import { useRoot, type ScratchRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

test.each(['add', 'move', 'change', 'remove'])('A NIC after its `%s` event', async (action) => {
  // no other option is set, because none is read
  const rules = await expression<
    { name: string; text: string }[]
  >(`(import ${project}/nix/lab/vm.nix {
    inherit (lab) lib; options = { }; config.lab.vm = true;
    pkgs = { writeShellScript = _: text: text; writeTextDir = name: text: { inherit name text; }; };
  }).config.content.services.udev.packages`)
  mkdirSync(join(root.dir, 'etc/udev/rules.d'), { recursive: true })
  for (const { name, text } of rules) {
    writeFileSync(join(root.dir, 'etc/udev', name.replace('lib/udev/', '')), text)
  }
  // NixOS's rule for IPv6's temporary addresses
  const privacy = `ACTION=="add", SUBSYSTEM=="net", RUN+="/bin/sh -c 'echo 0 > /conf/$name/use_tempaddr'"\n`
  writeFileSync(join(root.dir, 'etc/udev/rules.d/98-ipv6-privacy-extensions.rules'), privacy)
  const ask = `mount -t sysfs sys /sys
    ip link add nic address 52:54:00:01:00:07 type veth peer name other
    udevadm test --action=${action} /sys/class/net/nic 2>&1 |
      sed -n -e 's/^ *SYSTEMD_WANTS=//p' -e 's|.*/conf/\\([^/]*\\)/use_tempaddr.*|\\1|p' | sort -u`
  writeFileSync(join(root.dir, 'root/ask'), ask)
  const said = await root.sh('unshare --net bash -euo pipefail /root/ask')
  // the later rule writes to the NIC's new name
  const wanted = action === 'remove' ? [] : ['lab-network@mgmt.service']
  expect(said.split('\n').filter(Boolean)).toEqual([
    ...wanted,
    ...(action === 'add' ? ['mgmt'] : []),
  ])
})
