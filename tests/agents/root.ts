/**
 * A scratch root for tests of agents: the guest's own userland (the image's jj, nix, git and chezmoi), run
 * natively, a hundred times as fast as in a VM. It has no systemd.
 */
import { afterAll, beforeAll, beforeEach, expect } from 'vitest'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { Failure } from '../../lib/failure.ts'
import type { BaseImage } from '../../lib/image/base.ts'
import { ensureBaseImage } from '../../lib/image/image.ts'
import { lock } from '../../lib/lock.ts'
import { run, type Ran, type RunOptions } from '../../lib/run.ts'

export interface RootOptions extends RunOptions {
  /** User that runs the command: root, or rain (uid 1000, home /home/rain). Default root. */
  user?: 'root' | 'rain'
  /** Starts a nix-daemon beside it, through which rain reaches the store. */
  daemon?: boolean
  /** A command of this machine that wraps the one in the root, for example to make its writes fail. */
  around?: string[]
}

export interface ScratchRoot {
  /** The root directory as seen from outside; it has its own /etc, /var, /run, /home, /nix and /boot. */
  dir: string
  /** Runs a command in it; any process that the command leaves running ends with it. Throws as `run` does. */
  run: (command: string[], options?: RootOptions) => Promise<Ran>
  /** The same for a bash script; returns its output, without the final newline. */
  sh: (script: string, options?: RootOptions) => Promise<string>
  /** Another root with the same files: cheaper than filling a new one. */
  copy: () => Promise<ScratchRoot>
  remove: () => Promise<void>
}

/** The reason why no scratch root can be made here, for `context.skip`; undefined if one can. */
export async function missingForRoot(): Promise<string | undefined> {
  const probe = [
    'sh',
    '-euc',
    'mount -t proc proc /proc && setpriv --reuid 1000 --regid 100 --clear-groups true',
  ]
  const { code, stderr } = await run('unshare', [...namespaces(), ...probe], {
    allow: [1, 126, 127, 128],
  })
  return code === 0
    ? undefined
    : `no namespaces for a scratch root: ${stderr.trim().split('\n')[0]}`
}

/** A fresh scratch root; fast once the image and its file tree are in the cache. */
export async function makeRoot(): Promise<ScratchRoot> {
  const cache = process.env['LAB_TEST_CACHE'] ?? join(tmpdir(), 'cache')
  const base = await ensureBaseImage({
    cache,
    onProgress: (line) => {
      if (!line.includes(' s of at most ')) console.log(line)
    },
  })
  const tree = await userland(base, cache)
  const dir = mkdtempSync(join(tmpdir(), 'root-'))
  await inNamespace(['sh', '-euc', setUp, 'sh', dir, tree])
  return scratchRoot(dir, tree)
}

function scratchRoot(dir: string, tree: string): ScratchRoot {
  // one call of mount for all: starting programs is most of the cost of a command in here
  writeFileSync(`${dir}.mounts`, mountsOf(dir, tree))
  const enter = (
    command: string[],
    { user = 'root', daemon = false, around = [], ...options }: RootOptions,
  ) => {
    const as = user === 'root' ? [] : ['setpriv', '--reuid=1000', '--regid=100', '--clear-groups']
    const home = user === 'root' ? '/root' : '/home/rain'
    const env = { HOME: home, USER: user, LC_ALL: 'C.UTF-8', PATH: path, ...options.env }
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
    const clean = ['env', '-i', '-C', home, ...variables]
    const chroot = [...around, 'chroot', dir, ...as, ...clean, ...command]
    const given = [dir, daemon ? 'daemon' : '', traceOfTest(), ...chroot]
    return inNamespace(['sh', '-euc', start, 'sh', ...given], { ...options, env: {} })
  }
  return {
    dir,
    run: (command, options = {}) => enter(command, options),
    sh: async (script, options = {}) => {
      const ended = enter(['bash', '-euo', 'pipefail', '-c', script], options)
      // a failing test shows the script's output
      const { stdout } = await ended.catch((error: Failure) => {
        throw new Error(`${error.message}\n${error.detail?.evidence}`, { cause: error })
      })
      return stdout.trimEnd()
    },
    copy: async () => {
      const other = mkdtempSync(join(tmpdir(), 'root-'))
      await inNamespace(['cp', '--archive', '--no-target-directory', dir, other])
      return scratchRoot(other, tree)
    },
    remove: async () => {
      await inNamespace(['rm', '-rf', dir, `${dir}.mounts`])
    },
  }
}

const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin'

/** The image's /usr, /etc and /lab as directories: 450 MB, unpacked in 5 s, once for each image. */
async function userland(base: BaseImage, cache: string): Promise<string> {
  const tree = join(cache, 'trees', basename(base.dir))
  mkdirSync(join(cache, 'trees'), { recursive: true })
  const held = await lock(join(cache, 'trees/lock'), 'copy the userland', { wait: 300 })
  try {
    if (existsSync(tree)) return tree
    const work = `${tree}.new`
    rmSync(work, { recursive: true, force: true })
    mkdirSync(work)
    const dump = ['usr', 'etc', 'lab'].map((name) => `rdump /${name} ${work}\n`).join('')
    writeFileSync(`${work}.commands`, dump)
    // one owner, so that a suite run by an ordinary user can remove it
    const script =
      'debugfs -f "$1.commands" "$2" >/dev/null 2>&1; chown -hR 0:0 "$1"; rm "$1.commands"'
    await inNamespace(['sh', '-euc', script, 'sh', work, `${base.raw}?offset=${base.root.start}`])
    renameSync(work, tree)
    return tree
  } finally {
    held.release()
  }
}

const namespaces = (): string[] => [
  ...(process.getuid?.() === 0 ? [] : ['--user', '--map-auto', '--map-root-user']),
  ...['--mount', '--pid', '--fork', '--kill-child', '--'],
]
const inNamespace = (command: string[], options?: RunOptions): Promise<Ran> =>
  run('unshare', [...namespaces(), ...command], options)

const devices = ['null', 'zero', 'full', 'random', 'urandom', 'tty']

/** $1 the new root, $2 the userland */
const setUp = `
umask 022
cd "$1"
chmod 755 .
mkdir -p usr lab dev/pts proc sys tmp boot root home/rain run/nixos nix/store nix/var/nix/daemon-socket var/lib var/tmp
cp -r "$2/etc" etc
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$name"; done
for name in ${devices.join(' ')}; do : >"dev/$name"; done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
chmod 1777 tmp var/tmp
chmod 700 root home/rain
echo 'rain:x:1000:100::/home/rain:/bin/bash' >>etc/passwd
mkdir -p etc/nix
cat >etc/nix/nix.conf <<END
experimental-features = nix-command flakes
sandbox = false
build-users-group =
substituters =
flake-registry =
END
chown 1000:100 home/rain`

/**
 * Directory below LAB_TRACE into which the agents of this test write their traces (lib/mutation/trace.ts);
 * empty without LAB_TRACE.
 */
function traceOfTest(): string {
  const traces = process.env['LAB_TRACE']
  if (!traces) return ''
  const { currentTestName: test = '' } = expect.getState()
  const dir = join(traces, createHash('sha256').update(test).digest('hex').slice(0, 16))
  mkdirSync(dir, { recursive: true })
  chmodSync(dir, 0o777)
  writeFileSync(join(dir, 'test.json'), JSON.stringify(test))
  return dir
}

/** The mounts that a command sees in a root in addition to the root's own files, as a table for mount(8). */
const mountsOf = (dir: string, tree: string): string =>
  [
    ...['usr', 'lab'].map((name) => `${tree}/${name} ${dir}/${name} none bind 0 0`),
    ...devices.map((name) => `/dev/${name} ${dir}/dev/${name} none bind 0 0`),
    `proc ${dir}/proc proc defaults 0 0`,
    `devpts ${dir}/dev/pts devpts newinstance,ptmxmode=0666 0 0`,
  ]
    .map((line) => `${line}\n`)
    .join('')

/** $1 the root, $2 `daemon` or nothing, $3 a directory for traces or nothing, then the command that enters the root. */
const start = `
root=$1 daemon=$2 trace=$3
shift 3
if [ "$trace" ]; then mkdir -p "$root/trace"; mount --bind "$trace" "$root/trace"; fi
mount --all --fstab "$root.mounts"
if [ "$daemon" ]; then
  rm -f "$root/nix/var/nix/daemon-socket/socket"
  PATH=${path} chroot "$root" nix-daemon >/dev/null 2>&1 &
  until [ -S "$root/nix/var/nix/daemon-socket/socket" ]; do sleep 0.05; done
fi
PATH=${path} "$@"`

/**
 * Gives the tests of a file one root, made before the first test and removed after the last; if this machine
 * cannot have one, each test is skipped with the reason.
 */
export async function useRoot(take: (root: ScratchRoot) => void): Promise<void> {
  const missing = await missingForRoot()
  let root: ScratchRoot | undefined
  beforeAll(async () => {
    if (!missing) take((root = await makeRoot()))
  }, 600_000)
  afterAll(() => root?.remove())
  beforeEach((context) => {
    if (missing) context.skip(missing)
  })
}
