import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { Failure } from '../failure.ts'
import type { BaseImage } from './base.ts'
import { checkDisk, cluster } from './qcow2.ts'
import { lock } from '../lock.ts'
import { run } from '../run.ts'

export interface LayerOptions {
  /** Store path of a toplevel that is built in `store`. */
  toplevel: string
  /** What `storeOptions` gave. */
  store: string[]
  /** For the lines that say what goes on. */
  host: string
  /** Size of the VM's disk in bytes, 20 GiB unless said otherwise; the root file system fills it. */
  size?: number
}

const mib = 1024 ** 2
/** ext4's unit of allocation. */
const block = 4096

/**
 * A qcow2 image over the base image that holds generation 1 of a host: its closure in the store and
 * in Nix's database, the system profile, /boot's entry. Made in a second or so without mounting
 * anything, and cached by toplevel and size.
 *
 * debugfs, resize2fs and mtools work on thin copies: of the ESP, and of the root file system's
 * metadata alone (`root.meta`, from e2image). What differs afterwards is all that the layer holds.
 * @returns path of the layer
 * @throws Failure
 */
export async function ensureHostLayer(base: BaseImage, options: LayerOptions): Promise<string> {
  const size = options.size ?? 20 * 1024 ** 3
  const key = createHash('sha256')
    .update(`1 ${options.toplevel} ${size}`)
    .digest('hex')
    .slice(0, 16)
  const layers = join(base.dir, 'layers')
  const path = join(layers, `${key}.qcow2`)
  mkdirSync(layers, { recursive: true })
  if (await isWhole(path)) return path
  const held = await lock(join(layers, `${key}.lock`), `make the disk of \`${options.host}\``, {
    wait: 120,
  })
  const work = join(layers, `.making-${key}`)
  try {
    if (await isWhole(path)) return path
    // the lock is ours: this is of a task that was killed
    rmSync(work, { recursive: true, force: true })
    mkdirSync(work)
    await make(base, { ...options, size }, work, path)
    return path
  } finally {
    rmSync(work, { recursive: true, force: true })
    held.release()
  }
}

/** False as well for a layer that was cut short: it is made again. */
const isWhole = async (path: string): Promise<boolean> =>
  existsSync(path) &&
  (await checkDisk(path).then(
    () => true,
    () => false,
  ))

async function make(
  base: BaseImage,
  { toplevel, store, size }: Required<LayerOptions>,
  work: string,
  path: string,
): Promise<void> {
  const within = (name: string): string => join(work, name)
  const storeRoot = store[store.indexOf('--store') + 1]!
  const physical = (logical: string): string => join(storeRoot, logical)
  const rootEnd = size - mib
  if (rootEnd < base.root.start + base.root.size) {
    throw new Failure(`Cannot make a disk of ${Math.floor(size / mib)} MiB`, {
      hint: `The least that works is ${Math.ceil((base.root.start + base.root.size) / mib) + 1} MiB`,
    })
  }
  const closure = (await run('nix-store', [...store, '--query', '--requisites', toplevel])).stdout
    .trim()
    .split('\n')
  const kernel = readlinkSync(join(physical(toplevel), 'kernel'))
  const initrd = readlinkSync(join(physical(toplevel), 'initrd'))

  // the ESP: kernel and first stage lie there already, under names of no generation
  const esp = within('esp.img')
  await run('cp', ['--sparse=always', join(base.dir, 'esp.img'), esp])
  writeFileSync(within('entry'), bootEntry(toplevel, physical(toplevel), kernel, initrd))
  writeFileSync(within('loader'), 'timeout 0\ndefault nixos-generation-1.conf\n')
  for (const [file, name, original] of [
    [kernel, 'kernel', base.kernel],
    [initrd, 'initrd', base.initrd],
  ] as const) {
    const target = `::/EFI/nixos/${basename(file)}.efi`
    if (same(physical(file), original))
      await run('mren', ['-i', esp, `::/EFI/nixos/${name}.efi`, target])
    else {
      await run('mdel', ['-i', esp, `::/EFI/nixos/${name}.efi`])
      await run('mcopy', ['-i', esp, physical(file), target])
    }
  }
  await run('mcopy', ['-i', esp, within('entry'), '::/loader/entries/nixos-generation-1.conf'])
  await run('mcopy', ['-i', esp, within('loader'), '::/loader/loader.conf'])

  // the root file system
  const root = within('root.img')
  await run('cp', ['--sparse=always', join(base.dir, 'root.meta'), root])
  await run('truncate', ['--size', String(rootEnd - base.root.start), root])
  await run('resize2fs', [root])
  const dump = await run('nix-store', [...store, '--dump-db', ...closure])
  const scratch = within('db')
  mkdirSync(scratch)
  await run('nix-store', ['--store', scratch, '--option', 'build-users-group', '', '--load-db'], {
    input: dump.stdout,
  })
  const commands = new Debugfs()
  for (const dir of nixDirectories) commands.directory(dir)
  for (const logical of closure) {
    const original = logical === kernel ? base.kernel : logical === initrd ? base.initrd : undefined
    if (original && same(physical(logical), original)) {
      // the image's own file has a store path's mode and time, and one more name costs nothing
      commands.hardLink(`/lab/boot/${basename(original)}`, logical)
    } else commands.tree(physical(logical), logical)
  }
  commands.file(join(scratch, 'nix/var/nix/db/db.sqlite'), '/nix/var/nix/db/db.sqlite', 0o644)
  commands.file(join(scratch, 'nix/var/nix/db/schema'), '/nix/var/nix/db/schema', 0o644)
  commands.symlink('/nix/var/nix/profiles', '/nix/var/nix/gcroots/profiles')
  commands.symlink('/run/current-system', '/nix/var/nix/gcroots/current-system')
  commands.symlink('/run/booted-system', '/nix/var/nix/gcroots/booted-system')
  commands.symlink(toplevel, '/nix/var/nix/profiles/system-1-link')
  commands.symlink('system-1-link', '/nix/var/nix/profiles/system')
  await commands.run(root, within('commands'))

  // the disk: a partition table of its own size, and what has changed
  const delta = within('delta.raw')
  await run('truncate', ['--size', String(size), delta])
  await run('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', delta], {
    input: partitionTable(base, rootEnd),
  })
  await overlayChanges(base.raw, base.esp.start, join(base.dir, 'esp.img'), esp, delta)
  await overlayChanges(base.raw, base.root.start, join(base.dir, 'root.meta'), root, delta)
  const made = within('layer.qcow2')
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', delta, made])
  await run('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-b', base.raw, '-F', 'raw', made])
  renameSync(made, path)
}

const nixDirectories = [
  '/nix/store',
  '/nix/var',
  '/nix/var/log',
  '/nix/var/log/nix',
  '/nix/var/log/nix/drvs',
  '/nix/var/nix',
  '/nix/var/nix/db',
  '/nix/var/nix/gcroots',
  '/nix/var/nix/gcroots/auto',
  '/nix/var/nix/gcroots/per-user',
  '/nix/var/nix/profiles',
  '/nix/var/nix/profiles/per-user',
  '/nix/var/nix/temproots',
  '/nix/var/nix/userpool',
  '/nix/var/nix/daemon-socket',
]

/** As nix/lab/guest/install-boot-entries.sh writes it: the first switch finds nothing to change. */
const bootEntry = (toplevel: string, physical: string, kernel: string, initrd: string): string =>
  [
    'title NixOS',
    'sort-key nixos',
    'version Generation 1',
    `linux /EFI/nixos/${basename(kernel)}.efi`,
    `initrd /EFI/nixos/${basename(initrd)}.efi`,
    `options init=${toplevel}/init ${readFileSync(join(physical, 'kernel-params'), 'utf8').trim()}`,
    '',
  ].join('\n')

const partitionTable = ({ esp, root }: BaseImage, end: number): string =>
  [
    'label: gpt',
    `start=${esp.start / 512}, size=${esp.size / 512}, type=uefi, name=ESP`,
    `start=${root.start / 512}, size=${(end - root.start) / 512}, type=linux, name=nixos`,
    '',
  ].join('\n')

const same = (a: string, b: string): boolean =>
  statSync(a).size === statSync(b).size && readFileSync(a).equals(readFileSync(b))

/** A script for debugfs(8): what is written gets the owner, mode and time of a store path. */
class Debugfs {
  private readonly lines: string[] = []

  directory(path: string): void {
    this.lines.push(`mkdir ${quote(path)}`)
  }

  symlink(target: string, path: string): void {
    this.lines.push(`symlink ${quote(path)} ${quote(target)}`)
  }

  file(source: string, path: string, mode: number): void {
    this.lines.push(`write ${quote(source)} ${quote(path)}`, ...this.meta(path, 0o100000 | mode))
  }

  hardLink(existing: string, path: string): void {
    this.lines.push(`ln ${existing} ${quote(path)}`, `sif ${existing} links_count 2`)
  }

  /** A store path with all below it. Its modes on this side are canonical already. */
  tree(source: string, path: string): void {
    const found = lstatSync(source)
    if (found.isSymbolicLink()) {
      this.symlink(readlinkSync(source), path)
      this.lines.push(`sif ${quote(path)} mtime @1`)
    } else if (found.isDirectory()) {
      this.directory(path)
      for (const name of readdirSync(source)) this.tree(join(source, name), join(path, name))
      this.lines.push(...this.meta(path, 0o040555))
    } else this.file(source, path, found.mode & 0o777)
  }

  private meta(path: string, mode: number): string[] {
    return [
      `sif ${quote(path)} mode 0${mode.toString(8)}`,
      ...['uid 0', 'gid 0', 'mtime @1'].map((field) => `sif ${quote(path)} ${field}`),
    ]
  }

  async run(image: string, script: string): Promise<void> {
    writeFileSync(script, this.lines.join('\n'))
    const { stderr } = await run('debugfs', ['-w', '-f', script, image])
    // its exit code is 0 whatever happened
    const complaint = stderr.split('\n').find((line) => line && !/^debugfs \d/.test(line))
    if (complaint) throw new Failure(`Cannot write generation 1 into the disk: ${complaint}`)
  }
}

/** debugfs splits its lines at blanks; inside quotes only a quote, written twice, is special. */
function quote(path: string): string {
  if (/[\n\r]/.test(path)) throw new Failure(`Cannot write a file name with a newline: \`${path}\``)
  return `"${path.replaceAll('"', '""')}"`
}

/**
 * Copies into `delta` every cluster that differs between two states of a partition, whole: the
 * changed blocks over what the base image has there. `before` and `after` may be thin copies in
 * which unchanged blocks are holes.
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
      // a cluster of zeros would be a hole, through which the base image shows
      if (whole.every((byte) => byte === 0)) throw new Error(`Cluster ${at} became empty`)
      writeSync(files.delta, whole, 0, cluster, start + position)
    }
  } finally {
    for (const fd of Object.values(files)) closeSync(fd)
  }
}
