/**
 * The disk builder of NixOS hosts, tried with a system that is small enough to build here: a kernel, a first
 * stage that finds the root by its label, and a first process that prints what it finds.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, readdirSync, statSync, truncateSync, utimesSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { BaseImage } from '../../lib/image/base.ts'
import { ensureBaseImage } from '../../lib/image/image.ts'
import { ensureNixosDisk, type DiskLayout, type NixosDisk } from '../../lib/image/nixos.ts'
import { createOverlay } from '../../lib/image/qcow2.ts'
import { nix } from '../../lib/nix/nix.ts'
import { storeOptions } from '../../lib/nix/store.ts'
import { findCommand } from '../../lib/find-command.ts'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { findFirmware } from '../../lib/vm/firmware.ts'
import {
  blkid,
  debugfs,
  espOf,
  expectStore,
  onEsp,
  partitionsOf,
  sameFile,
} from '../disk-contents.ts'
import { makeLab, type Lab } from '../lab.ts'

const gib = 1024 ** 3
const size = 6 * gib
let lab: Lab
let base: BaseImage
let store: string[]

async function wanted(line: string, layout: Partial<DiskLayout>): Promise<NixosDisk> {
  const expr = `import ${project}/tests/tiny-system.nix {
    line = "${line}";
    busybox = ${base.dir}/bin/busybox;
    kernel = ${base.kernel};
    initrd = ${base.initrd};
    loader = ${base.dir}/boot/loader.efi;
  }`
  const build = async (name: string): Promise<string> => {
    const args = [...store, '--impure', '--no-link', '--json', '--expr', `(${expr}).${name}`]
    const { stdout } = await nix(['build', ...args])
    return (JSON.parse(stdout) as { outputs: { out: string } }[])[0]!.outputs.out
  }
  const loader = join(await build('systemd'), 'lib/systemd/boot/efi/systemd-bootx64.efi')
  return {
    ...{ host: 'tiny', toplevel: await build('toplevel'), store, size },
    layout: { ...byNames, loader, ...layout },
  }
}

const uuid = '0e1a4d8c-5a3f-4b6e-9d27-3c1f2b4a5d6e'
const byNames: DiskLayout = {
  esp: { by: 'partuuid', name: uuid },
  // the embedded guest's first stage, which this system uses, finds its root by this label
  root: { by: 'label', name: 'nixos', fsType: 'ext4', subvolumes: {} },
  swap: [{ by: 'uuid', name: uuid }],
  loader: '',
}

beforeAll(async () => {
  lab = makeLab()
  base = await ensureBaseImage({ cache: lab.env['LAB_CACHE']! })
  store = storeOptions(base)
  // the embedded guest's image is shared, but what is made from it here is not
  process.env['LAB_CACHE'] = join(lab.dir, 'cache')
})
afterAll(async () => {
  delete process.env['LAB_CACHE']
  await lab.remove()
})

const images = (): string[] =>
  readdirSync(join(lab.dir, 'cache/nixos')).filter((name) => !name.endsWith('.lock'))

/** What the system prints when it boots from a VM's disk on top of a layer. */
async function boot(layer: string): Promise<string[]> {
  const disk = join(lab.dir, 'disk.qcow2')
  const vars = join(lab.dir, 'vars.fd')
  const firmware = findFirmware()
  await createOverlay(layer, disk, size)
  expect(statSync(disk).blocks * 512).toBeLessThan(1e6)
  copyFileSync(firmware.vars, vars)
  const { stdout } = await run(
    'qemu-system-x86_64',
    [
      ...['-nodefaults', '-no-reboot', '-display', 'none', '-machine', 'q35', '-m', '512'],
      ...['-cpu', 'qemu64,+rdrand', '-serial', 'stdio'],
      ...['-drive', `if=pflash,format=raw,readonly=on,file=${firmware.code}`],
      ...['-drive', `if=pflash,format=raw,file=${vars}`],
      ...['-drive', `if=none,id=disk0,format=qcow2,file=${disk}`],
      ...['-device', 'virtio-blk-pci,drive=disk0'],
    ],
    { timeout: 300 },
  )
  return [...stdout.matchAll(/tiny: (.*?)\r?\n/g)].map(([, said]) => said!)
}

test('a VM boots from the disk into the system that the disk was made for', async () => {
  const layer = await ensureNixosDisk(await wanted('one', {}), () => {})
  const said = await boot(layer)
  expect(said.slice(0, 4)).toEqual([
    'one',
    'profile system-1-link',
    'entries nixos-generation-1.conf',
    'odd',
  ])
  // 6 GiB minus 1 for the ESP, 2 for swap and what ext4 uses itself
  expect(Number(/root of (\d+) MiB/.exec(said[4]!)![1])).toBeGreaterThan(2900)
})

test('a disk has the names and labels that the host declares, and a valid Nix store', async () => {
  const { toplevel, ...rest } = await wanted('one', {})
  const layer = await ensureNixosDisk({ toplevel, ...rest }, () => {})
  const disk = join(lab.dir, 'disk.raw')
  await run('qemu-img', ['convert', '-O', 'raw', layer, disk])
  expect(statSync(disk).size).toBe(size)
  const [esp, swap, root] = await partitionsOf(disk)
  expect(esp!.uuid.toLowerCase()).toBe(uuid)
  expect(await blkid(disk, swap!.start * 512)).toMatchObject({ TYPE: 'swap', UUID: uuid })
  const { start } = root!
  expect(await blkid(disk, start * 512)).toMatchObject({ TYPE: 'ext4', LABEL: 'nixos' })

  const vfat = await espOf(disk, join(lab.dir, 'esp.img'), 1024)
  const entry = await onEsp(vfat, 'loader/entries/nixos-generation-1.conf')
  expect(entry).toContain(`options init=${toplevel}/init console=ttyS0\n`)
  // the name that systemd-boot-builder.py gives to a file of a package
  const file = /^linux \/(EFI\/nixos\/\w{32}-linux-1\.0-bzImage\.efi)$/m.exec(entry)![1]!
  const out = join(lab.dir, 'kernel')
  await run('mcopy', ['-i', vfat, `::/${file}`, out])
  expect(sameFile(out, base.kernel)).toBe(true)
  expect(entry).toMatch(/^initrd \/EFI\/nixos\/\w{32}-initrd-linux-1\.0-initrd\.cpio\.efi$/m)
  for (const path of ['EFI/BOOT/BOOTX64.EFI', 'EFI/systemd/systemd-bootx64.efi']) {
    await run('mcopy', ['-o', '-i', vfat, `::/${path}`, out])
    expect(sameFile(out, join(base.dir, 'boot/loader.efi'))).toBe(true)
  }
  expect((await run('mdir', ['-b', '-i', vfat, '::/loader'])).stdout).not.toContain('random-seed')

  const image = `${disk}?offset=${start * 512}`
  await run('e2fsck', ['-fn', image])
  const ask = debugfs(image)
  expect(await ask(`stat ${toplevel}/init`)).toMatch(/Mode: +0?555[\s\S]*User: +0 +Group: +0/)
  expect(await ask(`stat ${toplevel}/init`)).toContain('mtime: 0x00000001')
  expect(await ask(`stat ${toplevel}`)).toMatch(/Mode: +0?555[\s\S]*mtime: 0x00000001/)
  expect(await ask('stat /etc/NIXOS')).toContain('Type: regular')
  expect(await ask('stat /tmp')).toMatch(/Mode: +01777/)
  await expectStore(image, toplevel, join(lab.dir, 'within'))
})

test('another system with the same layout only adds a small layer, and boots as well', async () => {
  await ensureNixosDisk(await wanted('one', {}), () => {})
  const before = images()
  const found = join(lab.dir, 'cache/nixos', before[0]!)
  utimesSync(found, 1, 1)
  const layer = await ensureNixosDisk(await wanted('two', {}), () => {})
  expect(images()).toEqual(before)
  // touched, so that a task that deletes old bases meanwhile keeps it
  expect(statSync(found).mtimeMs).toBeGreaterThan(Date.now() - 600_000)
  expect(statSync(layer).blocks * 512).toBeLessThan(4e6)
  expect((await boot(layer))[0]).toBe('two')
  // other names make another layout
  const other = await wanted('two', {
    root: { ...byNames.root, by: 'partlabel', name: 'disk-main-root' },
  })
  const [named] = (await partitions(await ensureNixosDisk(other, () => {}))).slice(-1)
  expect(named!.name).toBe('disk-main-root')
  expect(images().length).toBe(before.length + 1)
})

async function partitions(layer: string): ReturnType<typeof partitionsOf> {
  const disk = join(lab.dir, 'named.raw')
  await run('qemu-img', ['convert', '-O', 'raw', layer, disk])
  return partitionsOf(disk)
}

test('a truncated base is not used, and one whose making was killed is made again', async () => {
  const one = await wanted('three', {})
  const whole = dirname(dirname(await ensureNixosDisk(one, () => {})))
  truncateSync(join(whole, 'base.raw'), statSync(join(whole, 'base.raw')).size / 2)

  const script = `const { ensureNixosDisk } = await import('${project}/lib/image/nixos.ts')
    await ensureNixosDisk(${JSON.stringify(one)}, () => {})`
  const tsx = ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script]
  const child = spawn(process.execPath, tsx, { cwd: project, stdio: 'inherit' })
  const ended = once(child, 'exit')
  const half = (): string | undefined => images().find((name) => name.startsWith('.making'))
  const inWork = (): boolean => {
    const name = half()
    return name !== undefined && existsSync(join(lab.dir, 'cache/nixos', name, 'base.raw'))
  }
  while (!inWork() && child.exitCode === null) await sleep(5)
  child.kill('SIGKILL')
  await ended
  expect(half()).toBeDefined()
  // a task that makes another disk, or none, also removes what is left
  await ensureNixosDisk(await wanted('one', {}), () => {})
  expect(half()).toBeUndefined()

  const layer = await ensureNixosDisk(one, () => {})
  expect(basename(dirname(dirname(layer)))).not.toBe(basename(whole))
  expect((await boot(layer))[0]).toBe('three')
})

const knowsSubvolumes = (mkfs: string): boolean =>
  execFileSync('sh', ['-c', '"$1" --help 2>&1 || true', 'sh', mkfs], { encoding: 'utf8' }).includes(
    '--subvol',
  )

test('a btrfs root has the subvolumes that the host mounts, or is refused in one line', async () => {
  const btrfs = await wanted('one', {
    root: {
      ...{ by: 'label', name: 'nixos', fsType: 'btrfs' },
      subvolumes: { '/': '@root', '/nix': '@nix', '/home': '@home' },
    },
  })
  const made = ensureNixosDisk(btrfs, () => {})
  const mkfs = findCommand('mkfs.btrfs')
  if (!mkfs || !knowsSubvolumes(mkfs)) {
    await expect(made).rejects.toThrow('no mkfs.btrfs here knows `--subvol`')
    expect(images().filter((name) => name.startsWith('.making'))).toEqual([])
    return
  }
  const disk = join(lab.dir, 'btrfs.raw')
  const image = join(lab.dir, 'btrfs.img')
  await run('qemu-img', ['convert', '-O', 'raw', await made, disk])
  const root = (await partitionsOf(disk)).at(-1)!
  expect(await blkid(disk, root.start * 512)).toMatchObject({ TYPE: 'btrfs', LABEL: 'nixos' })
  const place = ['bs=1M', `skip=${root.start / 2048}`, `count=${root.size / 2048}`, 'conv=sparse']
  await run('dd', [`if=${disk}`, `of=${image}`, ...place])
  await run('btrfs', ['check', image])
  const trees = (await run('btrfs', ['inspect-internal', 'dump-tree', '-t', 'root', image])).stdout
  const names = [...trees.matchAll(/root ref key dirid \d+ sequence \d+ name (\S+)/g)].map(
    ([, name]) => name!,
  )
  expect(names.toSorted((a, b) => a.localeCompare(b))).toEqual(['@home', '@nix', '@root'])
})
