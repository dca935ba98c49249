import { agentJson } from './agent-json.ts'
import type { Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { quote } from '../quote.ts'
import { startAgain } from '../vm/upgrade.ts'

/** The part of /var/lib/chezmoi-sync/status.json, written by the dotfile agent, that cases read. */
export interface SyncStatus {
  phase: string
  /** Null while it runs. */
  outcome: string | null
  reason: string | null
  captured: string[]
  applied: string[]
  /** Targets that were left unchanged, with the reason. */
  kept: { file: string; reason: string }[]
  /** Edits of this host and of others that conflict with the trunk. */
  conflicts: { host: string; files: string[] }[]
}

export interface Synced {
  status: SyncStatus
  /** Attempts to push: more than one if another host pushed first. */
  pushes: number
  /** Exit code of the sync, or of the start of its unit. */
  code: number
  /** Number of directories that it left in /tmp. */
  left: number
  seconds: number
}

const unit = 'chezmoi-pre-update.service'
const statusFile = '/var/lib/chezmoi-sync/status.json'

/** Starts the sync the way the upgrade does, and waits for its end. */
export const syncByUnit = (vm: Machine): Promise<Synced> =>
  ran(vm, 'root', `${startAgain(unit)} 2>/dev/null`)

/**
 * Makes some edits and runs the sync as the user would. All in one command, because each one takes an emulated guest a
 * third of a second.
 */
export const editAndSync = (vm: Machine, edits: string): Promise<Synced> =>
  ran(vm, 'user', `cd; ${edits}\nchezmoi-sync >/tmp/sync.log 2>&1`)

async function ran(vm: Machine, as: 'root' | 'user', command: string): Promise<Synced> {
  const from = performance.now()
  const pushes =
    as === 'user'
      ? 'cat /tmp/sync.log'
      : `journalctl --output=cat _SYSTEMD_INVOCATION_ID="$(systemctl show --value -p InvocationID ${unit})"`
  // tells this run's status from that of an earlier one
  const stamp = `$(stat -c '%i %y' ${statusFile} 2>/dev/null)`
  const scratch = `find /tmp -maxdepth 1 -name 'tmp.*' -user ${vm.vm.user} | wc -l`
  const script = `before=${stamp} scratch=$(${scratch})
${command}
code=$?
echo "$(${pushes} | grep -c 'phase: push') $code $(($(${scratch}) - scratch))"
[ "$before" = "${stamp}" ] || cat ${statusFile}`
  const limit = 120 * vm.patience
  const sync = () => vm[as](script, { timeout: limit, allow: 'any' })
  const { stdout } = await vm.spend('dotfile syncs', sync, limit)
  const [counts = '', ...json] = stdout.split('\n')
  const text = json.join('\n')
  const status = agentJson<SyncStatus>(text, `the status of the sync of ${vm.host}`)
  const [pushed = 0, code = 0, left = 0] = counts.split(' ').map(Number)
  return { status, pushes: pushed, code, left, seconds: (performance.now() - from) / 1000 }
}

/** Text of a file in the user's home. */
export const readHome = async (vm: Machine, file: string): Promise<string> =>
  (await vm.user(`cat ${quote(file)}`)).stdout

/** Shell command that replaces a line of a file in the user's home, counted from 1. */
export const setLine = (file: string, line: number, text: string): string =>
  `sed -i ${quote(`${line}s/.*/${text}/`)} ${quote(file)}`

/** Files that the dotfiles put on every host: one that all hosts edit, and one for each host to edit. */
export const shared = '.labrc'
export const own = ['.config/lab/one.conf', '.config/lab/two.conf']
/** Edits a line of `shared` in the source, counted from 1, which must still have its first text. */
export const replacing =
  (line: number, text: string) =>
  (was: string): string =>
    was.replace(`line ${line}\n`, `${text}\n`)
export const setThird = replacing(3, 'line three')
/** A line of a text, counted from 1. */
export const lineOf = (text: string | undefined, line: number): string =>
  text?.split('\n')[line - 1] ?? 'nothing'

/** The outcome of a run, with its reason. */
export const said = ({ outcome: found, reason }: Synced['status']): string =>
  reason ? `${found}: ${reason}` : (found ?? 'nothing')

/** Runs the sync the way the upgrade does, and checks its outcome: see `outcome`. */
export const syncs = async (scene: Scene, vm: Machine, expected: string): Promise<SyncStatus> =>
  outcome(scene, vm, expected, await syncByUnit(vm)).status

/**
 * Checks the outcome of a run, and ends the case if it is another one.
 * @param expected the outcome, optionally with a colon and the beginning of its reason; a regular expression
 */
export function outcome(scene: Scene, vm: Machine, expected: string, synced: Synced): Synced {
  const { status, code, left } = synced
  scene.must(`sync of ${vm.host}`, new RegExp(`^${expected}\\b`), said(status))
  // the unit fails only when a person is needed, not for a success or a temporary problem
  const well = /^(synced|up-to-date|offline|skipped)$/.test(status.outcome ?? '')
  scene.check(`sync of ${vm.host}: whether it failed`, !well, code !== 0)
  // temporary files may hold secrets in plain text
  scene.check(`sync of ${vm.host}: directories left in /tmp`, 0, left)
  return synced
}
