import { agentJson } from './agent-json.ts'
import type { Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { quote } from '../quote.ts'
import { startAgain } from '../vm/upgrade.ts'

/** What the dotfile agent writes to /var/lib/chezmoi-sync/status.json, as far as cases read it. */
export interface SyncStatus {
  phase: string
  /** Null while it runs. */
  outcome: string | null
  reason: string | null
  captured: string[]
  applied: string[]
  /** Targets that were left as they are, with the reason. */
  kept: { file: string; reason: string }[]
  /** Edits that conflict with the trunk, of this host and of others. */
  conflicts: { host: string; files: string[] }[]
}

export interface Synced {
  status: SyncStatus
  /** Pushes that it tried: more than one when another host was first. */
  pushes: number
  /** Its exit code, or that of its unit's start. */
  code: number
  /** Directories that it has left in /tmp. */
  left: number
  seconds: number
}

const unit = 'chezmoi-pre-update.service'
const statusFile = '/var/lib/chezmoi-sync/status.json'

/** Starts the sync as the upgrade does, and waits until it has ended. */
export const syncByUnit = (vm: Machine): Promise<Synced> =>
  ran(vm, 'root', `${startAgain(unit)} 2>/dev/null`)

/**
 * Runs the sync as the user would, after some edits, in one command: an emulated guest takes a third
 * of a second for each.
 */
export const editAndSync = (vm: Machine, edits: string): Promise<Synced> =>
  ran(vm, 'user', `cd; ${edits}\nchezmoi-sync >/tmp/sync.log 2>&1`)

async function ran(vm: Machine, as: 'root' | 'user', command: string): Promise<Synced> {
  const from = performance.now()
  const pushes =
    as === 'user'
      ? 'cat /tmp/sync.log'
      : `journalctl --output=cat _SYSTEMD_INVOCATION_ID="$(systemctl show --value -p InvocationID ${unit})"`
  // what an earlier run has written is not this one's
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

/** Files that every host has from the dotfiles: one for all, and one for each. */
export const shared = '.labrc'
export const own = ['.config/lab/one.conf', '.config/lab/two.conf']
/** An edit of `shared` in the source: of a line, counted from 1, that is as it was at first. */
export const replacing =
  (line: number, text: string) =>
  (was: string): string =>
    was.replace(`line ${line}\n`, `${text}\n`)
export const setThird = replacing(3, 'line three')
/** A line of a text, counted from 1. */
export const lineOf = (text: string | undefined, line: number): string =>
  text?.split('\n')[line - 1] ?? 'nothing'

/** What a run came to, with its reason. */
export const said = ({ outcome: found, reason }: Synced['status']): string =>
  reason ? `${found}: ${reason}` : (found ?? 'nothing')

/** Runs the sync as the upgrade does, and checks what it comes to: see `outcome`. */
export const syncs = async (scene: Scene, vm: Machine, expected: string): Promise<SyncStatus> =>
  outcome(scene, vm, expected, await syncByUnit(vm)).status

/**
 * Checks what a run came to; with anything else there is no sense in going on.
 * @param expected the outcome and, behind a colon, how its reason begins, as in a regular expression
 */
export function outcome(scene: Scene, vm: Machine, expected: string, synced: Synced): Synced {
  const { status, code, left } = synced
  scene.must(`sync of ${vm.host}`, new RegExp(`^${expected}\\b`), said(status))
  // what waits for a person is a failed unit; what passes, or is well, is none
  const well = /^(synced|up-to-date|offline|skipped)$/.test(status.outcome ?? '')
  scene.check(`sync of ${vm.host}: whether it failed`, !well, code !== 0)
  // texts that are sealed elsewhere may be in it
  scene.check(`sync of ${vm.host}: nothing of it is left in /tmp`, 0, left)
  return synced
}
