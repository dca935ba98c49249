import { existsSync, realpathSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { Failure } from '../failure.ts'
import { lastLines, run } from '../run.ts'

/** qcow2's unit of allocation, in bytes. */
export const cluster = 65536

/**
 * Makes a VM's own disk: an empty overlay on its host's layer.
 * @param size bytes, as the layer was made for
 */
export async function createOverlay(layer: string, path: string, size: number): Promise<void> {
  await run('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-b',
    layer,
    '-F',
    'qcow2',
    path,
    String(size),
  ])
}

/** The size in bytes that a guest sees of an image. @throws Failure */
export async function diskSize(path: string): Promise<number> {
  const { stdout } = await run('qemu-img', ['info', '-U', '--output', 'json', '-f', 'qcow2', path])
  return (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size']
}

/**
 * Checks that a disk and all images below it can be opened and are consistent.
 * @throws Failure when one is damaged, truncated or gone
 */
export async function checkDisk(path: string): Promise<void> {
  const broken = (why: string): Failure =>
    new Failure(`Cannot use the disk \`${path}\`: ${why}`, {
      hint: 'just deploy-test-vm <vm> --fresh makes a new one',
    })
  const chain = ['info', '-U', '--backing-chain', '--output', 'json', '-f', 'qcow2', path]
  const info = await run('qemu-img', chain, { allow: [1] })
  if (info.code !== 0) throw broken(lastLines(info.stderr, 1))
  for (const { filename, format } of JSON.parse(info.stdout) as ImageInfo[]) {
    if (format !== 'qcow2') continue
    const check = ['check', '-U', '--output', 'json', '-f', 'qcow2', filename]
    // 2: corrupt, 3: leaked clusters, which are harmless
    const { code, stderr, stdout } = await run('qemu-img', check, { allow: [1, 2, 3] })
    if (code === 1) throw broken(lastLines(stderr, 1))
    if (code === 2) throw broken(`\`${filename}\` is corrupt`)
    const { 'image-end-offset': end = 0 } = JSON.parse(stdout) as { 'image-end-offset'?: number }
    // a read beyond the end gives zeros, so qemu-img finds no error; the last cluster may be a partial one
    if (end - cluster >= statSync(filename).size) throw broken(`\`${filename}\` is cut short`)
  }
}

/** Whether a disk is an overlay on an image; true also for a disk that cannot be read. */
export async function standsOn(disk: string, image: string): Promise<boolean> {
  const info = ['info', '-U', '--output', 'json', '-f', 'qcow2', disk]
  const { code, stdout } = await run('qemu-img', info, { allow: [1] })
  if (code !== 0) return true
  const { 'full-backing-filename': below } = JSON.parse(stdout) as Record<string, string>
  return below !== undefined && realPath(below) === realPath(image)
}

const realPath = (path: string): string => (existsSync(path) ? realpathSync(path) : resolve(path))

interface ImageInfo {
  filename: string
  format: string
}
