import { run } from '../run.ts'
import { optionValue } from '../vm/accelerator.ts'

/** A part of a disk, in bytes. */
export interface Partition {
  start: number
  size: number
}

export interface NamedPartition extends Partition {
  /** sfdisk's names of GPT types. */
  type: 'uefi' | 'linux' | 'swap'
  /** Its name in /dev/disk/by-partlabel. */
  name: string
  /** Its name in /dev/disk/by-partuuid, if that matters. */
  uuid?: string
}

export const mib = 1024 ** 2

/**
 * Writes a GPT of these partitions into a file, and leaves all other bytes unchanged.
 * @throws Failure when they do not fit
 */
export async function writeTable(disk: string, partitions: NamedPartition[]): Promise<void> {
  const lines = partitions.map(({ start, size, type, name, uuid }) =>
    [
      `start=${start / 512}, size=${size / 512}, type=${type}, name="${name}"`,
      ...(uuid === undefined ? [] : [`uuid=${uuid}`]),
    ].join(', '),
  )
  await run('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', disk], {
    input: `label: gpt\n${lines.join('\n')}\n`,
  })
}

/**
 * Copies an image of a partition to its place in a disk that has only zeros there. Skips the holes of a
 * sparse image.
 * @param format of the disk
 */
export async function putInto(
  disk: string,
  { start, size }: Partition,
  image: string,
  format: 'raw' | 'qcow2' = 'raw',
): Promise<void> {
  const driver = format === 'raw' ? 'file.driver=file,file' : 'file.driver=qcow2,file.file'
  const target = `driver=raw,offset=${start},size=${size},${driver}.filename=${optionValue(disk)}`
  const args = ['-n', '--target-is-zero', '-f', 'raw', '--target-image-opts', image, target]
  await run('qemu-img', ['convert', ...args], { timeout: 1800 })
}
