import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { fingerprint, finishBase, imageKey, layout, readImage, recipe, suiteOf } from './base.ts'
import type { BaseImage, ImageOptions, Manifest } from './base.ts'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { lock, locked } from '../lock.ts'
import { inNamespaces, requireNamespaces } from '../namespaces.ts'
import { mib } from './partitions.ts'
import { findCommand } from '../find-command.ts'
import { counting } from '../retry.ts'
import { lastLines, run, type RunOptions } from '../run.ts'
import { labCache } from '../settings.ts'

/** Bytes that a build takes at its peak; 1.1 GB were measured. */
const needed = 1.5 * 1024 ** 3

/**
 * The base image of the embedded guest: from the cache, else built, which takes a minute and needs the
 * network. A second concurrent builder waits for the first and uses its image.
 * @throws Failure when it cannot be built; nothing partial is left then
 */
export async function ensureBaseImage(options: ImageOptions = {}): Promise<BaseImage> {
  const images = join(privateDirectory(options.cache ?? labCache()), 'images')
  mkdirSync(images, { recursive: true })
  const current = join(images, imageKey(options))
  const say = options.onProgress ?? (() => {})
  const cached = (): BaseImage | string | undefined =>
    options.fresh || !existsSync(current) ? undefined : readImage(realpathSync(current))
  const found = cached()
  if (typeof found === 'object') return found
  const take = () =>
    lock(join(images, 'lock'), 'build the base image', {
      wait: 900,
      say: (line) => say(`base image: ${line}`),
    })
  return locked([take], async () => {
    // another task that held the lock may have built it
    const now = cached()
    if (typeof now === 'object') return now
    if (now) say(`base image: ${now}; building it again`)
    return build(images, current, options, say)
  })
}

async function build(
  images: string,
  current: string,
  options: ImageOptions,
  say: (line: string) => void,
): Promise<BaseImage> {
  const { signal } = options
  // this task holds the lock, so killed builders left these
  for (const name of readdirSync(images)) {
    if (name.startsWith('.building-')) await removeTree(join(images, name))
  }
  const free = statfsSync(images)
  if (free.bavail * free.bsize < needed) {
    const have = ((free.bavail * free.bsize) / 1024 ** 3).toFixed(1)
    throw new Failure(
      `Cannot build the base image: \`${images}\` has ${have} GiB free, but the build needs 1.5`,
      {
        hint: 'Make room, or set LAB_CACHE to another disk',
      },
    )
  }
  await requireTools(signal)
  const suite = suiteOf(options)
  const { mirror = await debianMirror() } = options
  const proxy = (await run('apt-config', ['shell', 'p', 'Acquire::http::Proxy'], quiet)).stdout
  const dir = join(images, `.building-${basename(current)}-${process.pid}`)
  mkdirSync(dir)
  const stages: Manifest['stages'] = []
  let from = performance.now()
  let stage = stageNames['debian']!
  const onLine = (line: string): void => {
    const [word, name, mb] = line.split(' ')
    if (word === 'stage') stage = stageNames[name!] ?? name!
    if (word !== 'done') return
    stages.push({ name: name!, seconds: (performance.now() - from) / 1000, mb: Number(mb) })
    from = performance.now()
  }
  try {
    const args = [
      join(recipe, 'build.sh'),
      dir,
      suite,
      mirror,
      String(layout.root.start / mib),
      String(layout.root.size / mib),
      /^p='(.*)'$/m.exec(proxy)?.[1] ?? '',
    ]
    const limit = 1800
    await counting(
      () => `base image: ${stage}`,
      limit,
      say,
      () => inNamespace(['sh', ...args], { timeout: limit, onLine, signal }),
    )
    const raw = join(dir, 'base.raw')
    const boot = (name: string): string => join(dir, 'boot', name)
    const files = { loader: boot('loader.efi'), kernel: boot('kernel'), initrd: boot('initrd') }
    from = performance.now()
    await finishBase(dir, raw, layout.partitions, files)
    const { size, blocks } = statSync(raw)
    stages.push({
      name: 'disk',
      seconds: (performance.now() - from) / 1000,
      mb: Math.round((blocks * 512) / 1e6),
    })
    const manifest: Manifest = {
      suite,
      mirror,
      packages: Object.fromEntries(
        readFileSync(join(dir, 'packages.tsv'), 'utf8')
          .trim()
          .split('\n')
          .map((line) => line.split('\t')),
      ),
      stages,
      size,
      allocated: blocks * 512,
      fingerprint: fingerprint(raw),
    }
    writeFileSync(join(dir, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`)
    const built = `${current}-${Date.now().toString(36)}`
    renameSync(dir, built)
    // a symlink that is replaced by rename, so that disks on an older build keep that build
    const link = `${dir}.link`
    symlinkSync(basename(built), link)
    renameSync(link, current)
    say(describe(manifest))
    return readImage(built) as BaseImage
  } catch (error) {
    throw signal?.aborted ? error : buildFailure(error, dir, mirror, suite)
  } finally {
    if (existsSync(dir)) await removeTree(dir)
  }
}

const quiet: RunOptions = { allow: [1, 100, 127, 128], timeout: 30 }
const stageNames: Record<string, string> = {
  debian: 'Debian packages',
  trim: 'trim',
  programs: 'programs by package',
  initrd: 'first stage',
  root: 'root file system',
}

const describe = ({ packages, stages, allocated, suite }: Manifest): string => {
  const kernel = Object.keys(packages).find((name) => name.startsWith('linux-binary-'))
  const taken = ['systemd', 'nix-bin', 'jujutsu', 'chezmoi'].map(
    (name) => `${name} ${packages[name]}`,
  )
  const seconds = stages.map(({ name, seconds: s }) => `${name} ${s.toFixed(1)} s`)
  return `base image: ${suite}, ${kernel}, ${taken.join(', ')}; ${(allocated / 1e6).toFixed(0)} MB; ${seconds.join(', ')}`
}

/** Runs a command as root in new namespaces. */
const inNamespace = (command: string[], options: RunOptions) =>
  run('unshare', [...inNamespaces(), ...command], options)

/** Removes a build directory, in which files may belong to subordinate users. */
async function removeTree(dir: string): Promise<void> {
  await inNamespace(['rm', '-rf', dir], { timeout: 120, allow: [1, 128] })
  rmSync(dir, { recursive: true, force: true })
}

async function requireTools(signal?: AbortSignal): Promise<void> {
  for (const tool of [
    'mmdebstrap',
    'unshare',
    'mkfs.vfat',
    'mcopy',
    'sfdisk',
    'mke2fs',
    'cpio',
    'xz',
    'modprobe',
  ]) {
    if (!findCommand(tool)) {
      throw new Failure(`Cannot build the base image: \`${tool}\` is not installed`, {
        hint: 'just doctor names the package',
      })
    }
  }
  await requireNamespaces(signal)
}

/**
 * The Debian mirror: `LAB_DEBIAN_MIRROR`, else the one that apt is configured with.
 * @throws Failure when apt knows of none
 */
export async function debianMirror(): Promise<string> {
  const named = process.env['LAB_DEBIAN_MIRROR']
  if (named) return named
  const format = ['indextargets', '--format', '$(REPO_URI) $(RELEASE)', 'Created-By: Packages']
  const { stdout } = await run('apt-get', format, quiet)
  const found = stdout
    .split('\n')
    .map((line) => line.split(' '))
    .find(([uri, suite]) => /\/debian\/?$/.test(uri ?? '') && !/-|\//.test(suite ?? '-'))
  if (found) return found[0]!.replace(/\/$/, '')
  throw new Failure('Cannot find a Debian mirror in the configuration of apt', {
    hint: 'Set LAB_DEBIAN_MIRROR to the address of one',
  })
}

/** Turns the error of a failed build into one clear message, from the build's log. */
function buildFailure(error: unknown, dir: string, mirror: string, suite: string): unknown {
  if (!(error instanceof Failure)) return error
  const path = join(dir, 'build.log')
  const log = existsSync(path) ? readFileSync(path, 'utf8') : ''
  const evidence = log ? lastLines(log.replaceAll(dir, '…')) : error.detail.evidence
  const all = `${log}\n${error.detail.evidence ?? ''}`
  const cannot = (why: string, hint: string): Failure =>
    new Failure(`Cannot build the base image: ${why}`, { hint, evidence, cause: error })
  if (/No space left on device|not enough free space/i.test(all)) {
    return cannot('the disk is full', 'Make room, or set LAB_CACHE to another disk')
  }
  if (/does not have a Release file|404 {2}Not Found/.test(all)) {
    return cannot(`${mirror} has no suite \`${suite}\``, 'LAB_DEBIAN_MIRROR names another mirror')
  }
  if (
    /Could not resolve|Unable to connect|Could not connect|Connection (failed|refused|timed out)|Failed to fetch|Temporary failure/.test(
      all,
    )
  ) {
    return cannot(`the mirror ${mirror} does not answer`, 'LAB_DEBIAN_MIRROR names another mirror')
  }
  if (/signed-by|NO_PUBKEY|is not signed|keyring/i.test(all)) {
    return cannot(
      'the mirror is not signed by a key that this machine knows',
      'Install debian-archive-keyring',
    )
  }
  return cannot(
    error.message.replace(/^Command `.*?` /, 'mmdebstrap or what follows it '),
    'LAB_CACHE holds nothing of it; run it again',
  )
}
