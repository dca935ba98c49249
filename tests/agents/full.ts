/**
 * Full disks, for tests of the upgrade: a world with a pending upgrade, a file system that is filled to a given
 * level, system calls that fail as on a full disk, and checks of what must hold once there is space again.
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { run, type Ran } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import type { RootOptions, ScratchRoot } from './root.ts'
import { makeUpgradeWorld, settings, type UpgradeWorld } from './upgrade.ts'

/** One system call that needs disk space, as tests/agents/fail-writes.py logs it. */
export interface Write {
  number: number
  phase: string
  program: string
  call: string
  path: string
  failed: boolean
}

/** What one run of the agent left for the user to read. */
export interface Left {
  code: number
  /** Outcome in status.json; `absent` without that file, null if it says that a run is still going on. */
  outcome: string | null
  phase: string
  reason: string
  /** All that it printed. */
  said: string
}

/** Each file system that an upgrade writes to. */
export const filesystems = ['home', 'var', 'nix', 'boot', 'run', 'tmp'] as const

const calls = join(project, 'tests/agents/fail-writes.py')
const python = '/usr/bin/python3'

/** The reason why system calls cannot be made to fail here, for `context.skip`; undefined if they can. */
export async function missingForWrites(): Promise<string | undefined> {
  const { code } = await run(python, ['-c', 'import seccomp'], { allow: [1, 127] })
  return code === 0 ? undefined : 'python3-seccomp is not installed'
}

/**
 * A deployed world whose next upgrade moves many files, with every kind of user data: an unpushed commit, an edit
 * of a tracked file, an uncommitted new file, and files that the remote changes as well.
 */
export async function makeFullWorld(): Promise<UpgradeWorld> {
  const world = await makeUpgradeWorld()
  const commit = (script: string): Promise<string> =>
    world.sh(`cd other; git pull -q; ${script}; git add .; git commit -qm next; git push -q`, {
      user: 'rain',
    })
  await commit(`seq 30000 >big.txt; echo kept >kept
    for i in {1..30}; do mkdir -p hosts/h$i; seq 200 >hosts/h$i/default.nix; done`)
  await world.upgrade()
  await world.rain(
    `echo mine >mine; jj commit -m mine; echo draft >draft; echo edited >>kept; jj status`,
  )
  await commit(`seq 1000 33000 >big.txt; printf '"two"' >text.nix
    for i in {1..30}; do mkdir -p modules/m$i; seq 300 >modules/m$i/default.nix; cp modules/m$i/* hosts/h$i; done`)
  return world
}

/** Reports user data that is lost, and a host that does not run the remote's commit. */
const wholeness = (text: string): string => `
cd /home/rain/nix-config
as() { setpriv --reuid=1000 --regid=100 --clear-groups env HOME=/home/rain "$@"; }
wrong() { echo "WRONG: $*"; }
same() { [[ "$2" == "$3" ]] || wrong "$1: \${2:-nothing} instead of $3"; }
same 'running system' "$(cat /run/current-system/text)" ${text}
[[ /run/current-system -ef /nix/var/nix/profiles/system ]] || wrong 'the profile is not what runs'
same 'remote' "$(as jj log --no-graph -r 'main@origin' -T commit_id)" "$(as git -C ../config.git rev-parse main)"
same 'own commits' "$(as jj log --no-graph -r 'main@origin..@' -T 'description.first_line() ++ "|"')" '|mine|'
same 'edits' "$(as jj diff --summary -r @)" "$(printf 'A draft\\nM kept')"
same 'edited files' "$(cat mine draft kept | tr '\\n' ' ')" 'mine draft kept edited '
same 'conflicts' "$(as jj log --no-graph -r 'conflicts()' -T commit_id)" ''
same 'tracked files' "$(as git diff --name-only HEAD -- . ':!kept' ':!draft')" ''
same 'remembered as bad' "$(grep -v validation-failed /var/lib/nix-local-upgrade/known-bad 2>/dev/null)" ''
same 'left in the state directory' "$(ls /var/lib/nix-local-upgrade | grep -v -e '^status.json$' -e '^deployed$' -e '^candidate$' -e '^known-bad$' -e '^remote.git$')" ''
`

/** @returns a line for each thing that is wrong; empty if everything holds */
export const notWhole = async (world: UpgradeWorld, text = 'two'): Promise<string[]> =>
  wrongs(await world.sh(wholeness(text)))

const wrongs = (said: string): string[] =>
  said.split('\n').filter((line) => line.startsWith('WRONG: '))

/** The calls that fail, in terms of tests/agents/fail-writes.py. */
export interface Failing {
  /** Number of the first one, or a regular expression for `<phase> <program> <call> <path>`. */
  first: number | string
  /** How many fail; 0 only counts them all. */
  times: number
  /** An errno, or SIGKILL to kill all processes at the first one. Default ENOSPC. */
  error?: string
}

/** Runs a command in a root while system calls of it and of its children fail. */
export async function runWithFailingCalls(
  root: ScratchRoot,
  command: string[],
  failing: Failing,
  options: RootOptions = {},
): Promise<{ ran: Ran; writes: Write[] }> {
  const allow = Array.from({ length: 255 }, (_, index) => index + 1)
  const around = failingCalls(root, failing)
  const ran = await root.run(command, { ...options, allow, around })
  return { ran, writes: takeLog(root) }
}

/** The value of `RootOptions.around` that makes calls fail; `takeLog` returns the calls afterwards. */
export function failingCalls(root: ScratchRoot, failing: Failing): string[] {
  const { first, times, error = 'ENOSPC' } = failing
  const log = `${root.dir}.writes`
  return [python, calls, log, root.dir, error, `${first}`, `${times}`, filesystems.join(',')]
}
export function takeLog(root: ScratchRoot): Write[] {
  const log = `${root.dir}.writes`
  const text = readFileSync(log, 'utf8').trim()
  rmSync(log)
  return text.split('\n').filter(Boolean).map(parseWrite)
}

export async function upgradeWithFailingCalls(
  world: UpgradeWorld,
  failing: Failing,
  env: Record<string, string> = {},
): Promise<{ left: Left; writes: Write[] }> {
  const command = ['bash', '-euo', 'pipefail', '/root/agent']
  const options = { env: { ...settings, ...env }, daemon: true }
  const { ran, writes } = await runWithFailingCalls(world, command, failing, options)
  let text = ''
  try {
    text = world.read('var/lib/nix-local-upgrade/status.json')
  } catch {
    // a run that could write nothing leaves no status
  }
  return { left: whatIsLeft(ran.code, text, `${ran.stdout}\n${ran.stderr}`), writes }
}

function parseWrite(line: string): Write {
  const [, number, phase, program, call, path, failed] =
    /^(\d+) (\S+) (.+) (\w+) (\/.*?)( failed)?$/.exec(line)!
  return {
    number: Number(number),
    phase: phase!,
    program: program!,
    call: call!,
    path: path!,
    failed: failed !== undefined,
  }
}

function whatIsLeft(code: number, text: string, said: string): Left {
  if (!text.trim()) return { code, outcome: 'absent', phase: '', reason: '', said }
  const { outcome, phase, reason } = JSON.parse(text) as Left
  return { code, outcome, phase, reason, said }
}

/** Checks that the rollback was complete, and pushes a commit that can be deployed. */
const good = `
[[ $(cat /run/current-system/text) == one ]] || echo 'WRONG: a bad system runs after the second run' >&3
export UPGRADE_CHECKS='[]'
setpriv --reuid=1000 --regid=100 --clear-groups env HOME=/home/rain bash -euc '
  cd ~/other; git pull -q; printf %s "\\"three\\"" >text.nix; git commit -qam good; git push -q'`

/** How much of a file system is left free; anything that is not given is plentiful. */
export interface Room {
  kib?: number
  inodes?: number
  /** The file system is read-only, as after an error. */
  readonly?: boolean
  /** The phase in which something else uses up the space; default: before the run. */
  from?: string
}

/**
 * Runs the agent on a file system with this much space, then with plenty until it is up to date, at most twice. If
 * the space runs out in the rollback, a check is made to fail, and a good commit is pushed after the second run.
 */
export async function upgradeWithRoom(
  world: UpgradeWorld,
  filesystem: (typeof filesystems)[number],
  { kib, inodes, readonly, from }: Room,
): Promise<{ left: Left[]; wrong: string[] }> {
  mkdirSync(join(world.dir, 'results'), { recursive: true })
  const hook = from && { UPGRADE_PHASE_HOOK: `f() { [ "$1" != ${from} ] || bash /root/fill; }; f` }
  const back = from === 'rollback'
  const set = Object.entries({ ...settings, ...hook, ...(back && { UPGRADE_CHECKS: '["false"]' }) })
  const exports = set.map(([name, value]) => `export ${name}='${value.replaceAll("'", "'\\''")}'`)
  const script = `
${exports.join('\n')}
exec 3>&1 >/results/said 2>&1
mkdir -p /mnt; mount -t tmpfs -o size=2G,nr_inodes=200000,mode=755 tmpfs /mnt
cp -a /${filesystem}/. /mnt/; mount --move /mnt /${filesystem}
nix-daemon >/dev/null 2>&1 3>&- & 
until [[ -S /nix/var/nix/daemon-socket/socket ]]; do sleep 0.05; done
upgrade() {
  local code=0
  bash -euo pipefail /root/agent >"/results/said-$1" 2>&1 3>&- || code=$?
  echo "$code" >"/results/code-$1"
  cat /var/lib/nix-local-upgrade/status.json >"/results/status-$1" 2>/dev/null || true
}
cat >/root/fill <<'END'
${readonly ? `mount -o remount,bind,ro /${filesystem}; exit` : ''}
read -r used iused < <(df --output=used,iused -B 1024 /${filesystem} | tail -n 1)
mount -o remount,size=${kib === undefined ? '2G' : `$((used + ${kib}))k`},nr_inodes=${inodes === undefined ? 200000 : `$((iused + ${inodes}))`} /${filesystem}
END
${from ? '' : 'bash /root/fill'}
upgrade 1
unset UPGRADE_PHASE_HOOK
mount -o remount,bind,rw /${filesystem}
mount -o remount,size=2G,nr_inodes=200000 /${filesystem}
for run in 2 3; do
  upgrade $run
  grep -q -e '"outcome":"upgraded"' -e '"outcome":"up-to-date"' /results/status-$run && break
  ${back ? good : ''}
done
{ ${wholeness(back ? 'three' : 'two')} } >&3 2>&1
`
  world.write('root/sweep', script)
  await world.sh('rm -f /results/*')
  const { stdout } = await world.run(['bash', '-uo', 'pipefail', '/root/sweep'], { timeout: 300 })
  const left = [1, 2, 3].flatMap((number) => {
    try {
      const read = (name: string): string => world.read(`results/${name}-${number}`)
      return [whatIsLeft(Number(read('code')), read('status'), read('said'))]
    } catch (error) {
      if (error instanceof SyntaxError) throw error
      return []
    }
  })
  return { left, wrong: wrongs(stdout) }
}
