/** The lab's udev rules for a NixOS guest, asked of the guest's own udev: no event is to lose what a NIC wants. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression } from '../nix/evaluate.ts'
import { useRoot, type ScratchRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

test.each(['add', 'move', 'change', 'remove'])('A NIC after its `%s` event', async (action) => {
  // an option that is not set is not looked at either
  const rules = await expression<string>(`(import ${project}/nix/lab/vm.nix {
    inherit (lab) lib; options = { }; config.lab.vm = true; pkgs.writeShellScript = _: text: text;
  }).config.content.services.udev.extraRules`)
  mkdirSync(join(root.dir, 'etc/udev/rules.d'), { recursive: true })
  writeFileSync(join(root.dir, 'etc/udev/rules.d/99-local.rules'), rules)
  const ask = `mount -t sysfs sys /sys
    ip link add nic address 52:54:00:01:00:07 type veth peer name other
    udevadm test --action=${action} /sys/class/net/nic 2>&1 | sed -n 's/^ *SYSTEMD_WANTS=//p'`
  writeFileSync(join(root.dir, 'root/ask'), ask)
  const said = await root.sh('unshare --net bash -euo pipefail /root/ask')
  expect(said).toBe(action === 'remove' ? '' : 'lab-network@mgmt.service')
})
