/** A VM with a real QEMU and real disks but no guest: it starts at once and shows its firmware. */
import { execFileSync } from 'node:child_process'
import { files, lockVm, newUuid, writeVm, type Vm } from '../lib/vm/vm.ts'

export interface Box {
  vm: Vm
  /** QEMU's arguments. */
  argv: string[]
}

/** Makes the VM `box` in the current `LAB_HOME`, without starting it. */
export async function makeBox(): Promise<Box> {
  const held = await lockVm('box', 'test')
  held.release()
  const vm: Vm = {
    ...{ host: 'box', uuid: newUuid(), slot: 9, guest: 'debian', port: 2999, memory: 2 ** 26 },
    ...{ cpus: 1, disk: 2 ** 26, user: 'rain', toplevel: '/nix/store/x', layer: '/x' },
  }
  writeVm(vm)
  const f = files('box')
  for (const image of [f.disk, f.vars]) {
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M'])
  }
  const drive = (node: string, path: string): string[] => [
    '-blockdev',
    `qcow2,node-name=${node},file.driver=file,file.filename=${path}`,
    ...['-device', `virtio-blk-pci,id=${node}-device,drive=${node}`],
  ]
  const socket = (id: string, path: string): string[] => [
    ...['-chardev', `socket,id=${id},path=${path},server=on,wait=off`],
  ]
  const argv = [
    ...['-name', 'box', '-uuid', vm.uuid, '-nodefaults', '-no-user-config', '-machine', 'q35'],
    ...['-accel', 'tcg', '-m', '64', '-display', 'none', '-vga', 'std'],
    ...drive('disk0', f.disk),
    ...drive('efivars', f.vars),
    ...['-qmp', `unix:${f.qmp},server=on,wait=off`],
    ...[...socket('keeper', f.keeperQmp), '-mon', 'chardev=keeper,mode=control'],
    // nothing answers here, as in a frozen guest
    ...['-device', 'virtio-serial-pci', ...socket('qga', f.agent)],
    ...['-device', 'virtserialport,chardev=qga,name=org.qemu.guest_agent.0'],
    ...[...socket('serial', f.console), '-serial', 'chardev:serial'],
  ]
  return { vm, argv }
}
