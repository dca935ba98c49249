import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { run } from '../run.ts'
import type { Generation } from './generation.ts'

/** Paths on this machine of the files that a new EFI system partition gets. */
export interface EspFiles {
  /** systemd-boot. */
  loader: string
  kernel: string
  initrd: string
}

/**
 * Makes an ESP with a boot loader, and a kernel and initrd under provisional names, which `installGeneration`
 * changes. It has no random seed, because each machine makes its own. Clusters are 4 KiB, the largest that FAT32
 * allows at 264 MiB, so that the firmware reads a kernel faster.
 * @param path of the image, which is overwritten
 * @param size bytes
 * @param args more for mkfs.vfat, such as a label
 */
export async function makeEsp(
  path: string,
  size: number,
  { loader, kernel, initrd }: EspFiles,
  args: string[] = ['-n', 'ESP'],
): Promise<void> {
  writeFileSync(path, '')
  truncateSync(path, size)
  await run('mkfs.vfat', ['-F', '32', '-s', '8', ...args, path])
  const directories = ['EFI', 'EFI/BOOT', 'EFI/systemd', 'EFI/nixos', 'loader', 'loader/entries']
  await run('mmd', ['-i', path, ...directories.map((name) => `::/${name}`)])
  await put(path, loader, 'EFI/BOOT/BOOTX64.EFI')
  await put(path, loader, 'EFI/systemd/systemd-bootx64.efi')
  await put(path, kernel, 'EFI/nixos/kernel.efi')
  await put(path, initrd, 'EFI/nixos/initrd.efi')
  // the firmware's shell runs this when the boot loader cannot load a kernel: reset, and boot the default entry
  await run('mcopy', ['-i', path, '-', '::/startup.nsh'], { input: 'reset -c\r\n' })
}

/** Makes an ESP from `makeEsp` boot generation 1. @param had the files that it was made with */
export async function installGeneration(
  esp: string,
  generation: Generation,
  had: Pick<EspFiles, 'kernel' | 'initrd'>,
): Promise<void> {
  for (const name of ['kernel', 'initrd'] as const) {
    const wanted = generation.physical(generation[name])
    const target = `EFI/nixos/${espName(generation[name])}`
    if (same(wanted, had[name]))
      await run('mren', ['-i', esp, `::/EFI/nixos/${name}.efi`, `::/${target}`])
    else {
      await run('mdel', ['-i', esp, `::/EFI/nixos/${name}.efi`])
      await put(esp, wanted, target)
    }
  }
  const text = (content: string, path: string): Promise<unknown> =>
    run('mcopy', ['-i', esp, '-', `::/${path}`], { input: content })
  await text(bootEntry(generation), 'loader/entries/nixos-generation-1.conf')
  await text('timeout 0\ndefault nixos-generation-1.conf\n', 'loader/loader.conf')
}

const put = (esp: string, source: string, target: string): Promise<unknown> =>
  run('mcopy', ['-i', esp, source, `::/${target}`])

/** The name on the ESP for a file of the store, as systemd-boot-builder.py and the embedded guest's installer do it. */
function espName(path: string): string {
  const directory = basename(dirname(path))
  return directory === 'store' ? `${basename(path)}.efi` : `${directory}-${basename(path)}.efi`
}

/** Same text as nix/lab/guest/install-boot-entries.sh writes, so that the first switch changes nothing. */
const bootEntry = ({ toplevel, physical, kernel, initrd }: Generation): string =>
  [
    'title NixOS',
    'sort-key nixos',
    'version Generation 1',
    `linux /EFI/nixos/${espName(kernel)}`,
    `initrd /EFI/nixos/${espName(initrd)}`,
    `options init=${toplevel}/init ${readFileSync(join(physical(toplevel), 'kernel-params'), 'utf8').trim()}`,
    '',
  ].join('\n')

/** Whether two files have the same contents. */
export const same = (a: string, b: string): boolean =>
  statSync(a).size === statSync(b).size && readFileSync(a).equals(readFileSync(b))
