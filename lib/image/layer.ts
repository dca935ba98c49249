import { createHash } from 'node:crypto'
import { closeSync, existsSync, openSync, readSync, renameSync, writeSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Base } from './base.ts'
import { cached } from './cache.ts'
import { block, Debugfs } from './debugfs.ts'
import { installGeneration, same } from './esp.ts'
import { Failure } from '../failure.ts'
import { readGeneration, writeState } from './generation.ts'
import { mib, writeTable } from './partitions.ts'
import { checkDisk, cluster } from './qcow2.ts'
import { run } from '../run.ts'

export interface LayerOptions {
  /** Store path of a toplevel that is built in `store`. */
  toplevel: string
  /** The result of `storeOptions`. */
  store: string[]
  /** For progress messages. */
  host: string
  /** Size of the VM's disk in bytes, 20 GiB unless said otherwise; the root file system fills it. */
  size?: number
}

/**
 * A qcow2 image over a base that holds generation 1 of a host: its closure in the store and in Nix's
 * database, the system profile, the boot entry. It takes about a second, mounts nothing, and is cached
 * by toplevel and size.
 *
 * debugfs, resize2fs and mtools work on sparse copies: of the ESP, and of only the root file system's
 * metadata (`root.meta`, from e2image). The layer holds only what differs afterwards.
 * @returns path of the layer
 * @throws Failure
 */
export async function ensureHostLayer(base: Base, options: LayerOptions): Promise<string> {
  const size = options.size ?? 20 * 1024 ** 3
  const key = createHash('sha256')
    .update(`1 ${options.toplevel} ${size}`)
    .digest('hex')
    .slice(0, 16)
  const layers = join(base.dir, 'layers')
  const path = join(layers, `${key}.qcow2`)
  return await cached({
    ...{ dir: layers, key, what: `make the disk of \`${options.host}\``, wait: 120 },
    find: async () => ((await isWhole(path)) ? path : undefined),
    make: async (work) => {
      await make(base, { ...options, size }, work, path)
      return path
    },
  })
}

/** False also for a truncated layer, which is then made again. */
const isWhole = async (path: string): Promise<boolean> =>
  existsSync(path) &&
  (await checkDisk(path).then(
    () => true,
    () => false,
  ))

async function make(
  base: Base,
  { toplevel, store, size }: Required<LayerOptions>,
  work: string,
  path: string,
): Promise<void> {
  const within = (name: string): string => join(work, name)
  const rootEnd = size - mib
  if (rootEnd < base.root.start + base.root.size) {
    throw new Failure(`Cannot make a disk of ${Math.floor(size / mib)} MiB`, {
      hint: `The least that works is ${Math.ceil((base.root.start + base.root.size) / mib) + 1} MiB`,
    })
  }
  const generation = await readGeneration(toplevel, store)

  // the ESP: kernel and initrd are there already, under provisional names
  const esp = within('esp.img')
  await run('cp', ['--sparse=always', join(base.dir, 'esp.img'), esp])
  await installGeneration(esp, generation, base)

  // the root file system
  const root = within('root.img')
  await run('cp', ['--sparse=always', join(base.dir, 'root.meta'), root])
  await run('truncate', ['--size', String(rootEnd - base.root.start), root])
  await run('resize2fs', [root])
  const files = new Debugfs()
  for (const logical of generation.closure) {
    if (base.holds.has(logical)) continue
    const twin = ([generation.kernel, generation.initrd] as string[]).includes(logical)
      ? [base.kernel, base.initrd].find((file) => same(generation.physical(logical), file))
      : undefined
    // the base's copy has the mode and time of a store path, and a hard link to it costs nothing
    if (base.bootFiles && twin) files.hardLink(join(base.bootFiles, basename(twin)), logical)
    else files.tree(generation.physical(logical), logical)
  }
  await writeState(files, generation, work)
  await files.run(root, within('commands'))

  // the disk: a partition table for its size, and the changed clusters
  const delta = within('delta.raw')
  await run('truncate', ['--size', String(size), delta])
  const { partitions } = base
  const last = { ...partitions.at(-1)!, size: rootEnd - base.root.start }
  await writeTable(delta, [...partitions.slice(0, -1), last])
  await overlayChanges(base.raw, base.esp.start, join(base.dir, 'esp.img'), esp, delta)
  await overlayChanges(base.raw, base.root.start, join(base.dir, 'root.meta'), root, delta)
  const made = within('layer.qcow2')
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', delta, made], { timeout: 1800 })
  await run('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-b', base.raw, '-F', 'raw', made])
  renameSync(made, path)
}

/**
 * Copies every cluster that differs between two states of a partition into `delta`. The whole cluster
 * is copied: the base image's contents with the changed blocks on top. `before` and `after` may be
 * sparse copies in which unchanged blocks are holes.
 */
async function overlayChanges(
  base: string,
  start: number,
  before: string,
  after: string,
  delta: string,
): Promise<void> {
  const { stdout } = await run('qemu-img', ['map', '-f', 'raw', '--output', 'json', after])
  const extents = (JSON.parse(stdout) as { start: number; length: number; data: boolean }[]).filter(
    ({ data }) => data,
  )
  const clusters = new Set<number>()
  for (const extent of extents) {
    for (
      let at = Math.floor(extent.start / cluster);
      at * cluster < extent.start + extent.length;
      at++
    )
      clusters.add(at)
  }
  const files = {
    base: openSync(base, 'r'),
    before: openSync(before, 'r'),
    after: openSync(after, 'r'),
    delta: openSync(delta, 'r+'),
  }
  const read = (fd: number, position: number): Buffer => {
    const buffer = Buffer.alloc(cluster)
    readSync(fd, buffer, 0, cluster, position)
    return buffer
  }
  try {
    for (const at of clusters) {
      const position = at * cluster
      const old = read(files.before, position)
      const now = read(files.after, position)
      if (old.equals(now)) continue
      const whole = read(files.base, start + position)
      for (let offset = 0; offset < cluster; offset += block) {
        const changed = now.subarray(offset, offset + block)
        if (!changed.equals(old.subarray(offset, offset + block))) changed.copy(whole, offset)
      }
      // a cluster of zeros would become a hole, in which the base image is visible
      if (whole.every((byte) => byte === 0)) throw new Error(`Cluster ${at} became empty`)
      writeSync(files.delta, whole, 0, cluster, start + position)
    }
  } finally {
    for (const fd of Object.values(files)) closeSync(fd)
  }
}
