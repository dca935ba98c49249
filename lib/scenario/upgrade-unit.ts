import type { Failure } from '../failure.ts'
import type { StorePath } from '../nix/store.ts'
import { TookTooLong } from '../retry.ts'
import type { Note } from '../report/record.ts'
import { counting } from '../retry.ts'
import type { Exec } from '../ssh/commands.ts'
import { startToEnd } from '../vm/upgrade.ts'
import { agentJson } from './agent-json.ts'
import { labSubject } from './subject-lab.ts'
import { phaseOf, type Subject } from './subject.ts'

/** What the upgrade agent writes to /var/lib/nix-local-upgrade/status.json. */
export interface UpgradeStatus {
  phase: string
  /** Null while it runs. */
  outcome: string | null
  reason: string
  host: string
  mode: string
  from: Deployed | null
  to: Deployed | null
  notRestored: string[]
  checks: { command: string; result: 'ok' | 'failed' | 'n/a' }[]
  started: string
  finished: string | null
}

export interface Deployed {
  commit: string
  toplevel: StorePath
  generation: number
}

export interface Upgraded {
  /** Status of this run; undefined when the run has written none. */
  status: UpgradeStatus | undefined
  /** systemd's Result of the unit: `success`, `exit-code`, `signal`, `timeout`. */
  result: string
  /** The unit's journal: the last 60 lines, and of the lines before them those that name a phase. */
  log: string
  seconds: number
}

/** The upgrade of a VM, as a case controls it. */
export interface UpgradeUnit {
  /** What upgrades the VM. */
  subject: Subject
  /**
   * Starts the upgrade unit and waits until it has ended.
   * @throws TookTooLong when that takes longer than `limit` (seconds on KVM) and `waits` (seconds anywhere)
   */
  upgrade: (options?: { limit?: number; waits?: number }) => Promise<Upgraded>
  /**
   * Starts the upgrade unit and holds it at the start of a phase, or of the switch on hosts that skip that phase, by
   * the agent's own hook, which says so on the console and then waits to be killed. Only the lab's agent has such a
   * hook.
   */
  holdUpgradeAt: (phase: string, options?: { limit?: number }) => Promise<void>
  /** Removes the hook of `holdUpgradeAt`. */
  releaseUpgrade: () => Promise<void>
  status: () => Promise<UpgradeStatus | undefined>
}

const dropIn = '/run/systemd/system/nix-local-upgrade.service.d/lab.conf'
const hook = '/run/lab-phase-hook'

/**
 * @param needs how to reach the VM, and how limits become seconds on it
 */
export function upgradeUnit(needs: Needs): UpgradeUnit {
  const { host, subject = labSubject, root, write, serial, note, say, seconds } = needs
  // this file never exists, so that it never changes and is not read
  const statusFile = subject.status ?? '/run/lab-no-status'
  const status = async (): Promise<UpgradeStatus | undefined> => {
    const { stdout } = await root(`cat ${statusFile} 2>/dev/null || true`)
    return parseStatus(stdout, statusFile)
  }
  const upgrade: UpgradeUnit['upgrade'] = async ({ limit = 60, waits = 0 } = {}) => {
    const most = seconds(limit) + waits
    const from = performance.now()
    const began = note({ kind: 'upgrade', name: 'upgrade', host, phase: 'begin' })
    // one command: under emulation each costs a third of a second
    const script = `before=$(stat -c %i.%Y ${statusFile} 2>/dev/null)
      ${startToEnd(`${subject.unit}.service`)}
      systemctl show -p Result -p InvocationID ${subject.unit}.service | sort -r | { IFS='=' read -r _ result; IFS='=' read -r _ id
        echo "$result"; journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID="$id" | tac | awk 'NR <= 60 || /: phase: /' | tac; }
      printf '\\036\\n'
      [ "$before" = "$(stat -c %i.%Y ${statusFile} 2>/dev/null)" ] || cat ${statusFile}`
    const upgraded = () => root(script, { timeout: most, allow: 'any' })
    const { stdout } = await counting(`upgrade of ${host}`, most, say, upgraded).catch(
      (cause: Failure) => {
        if (!(cause instanceof TookTooLong)) throw cause
        const { evidence } = cause.detail
        throw new TookTooLong(
          `The upgrade of \`${host}\` took longer than its limit of ${most} s`,
          {
            cause,
            evidence,
          },
        )
      },
    )
    const [said = '', json = ''] = stdout.split('\u001e\n')
    const [result = '', ...log] = said.split('\n')
    const found = parseStatus(json, statusFile)
    const took = (performance.now() - from) / 1000
    const outcome = found?.outcome ?? result
    note({
      kind: 'upgrade',
      name: 'upgrade',
      host,
      phase: 'end',
      of: began,
      seconds: took,
      outcome,
    })
    return { status: found, result, log: log.join('\n').trimEnd(), seconds: took }
  }

  return {
    subject,
    upgrade,
    holdUpgradeAt: async (at, { limit = 60 } = {}) => {
      const phase = phaseOf(subject, at)
      await write(
        hook,
        `#!/bin/sh\n[ "$1" = ${phase} ] || exit 0\necho "lab: the upgrade is held at $1" >/dev/ttyS0\nexec sleep 3600\n`,
        { mode: '0755' },
      )
      await write(dropIn, `[Service]\nEnvironment=UPGRADE_PHASE_HOOK=${hook}\n`)
      const held = serial(
        new RegExp(`lab: the upgrade is held at ${phase}`),
        `phase ${phase}`,
        limit,
      )
      await root('systemctl daemon-reload && systemctl start --no-block nix-local-upgrade.service')
      note({ kind: 'upgrade', name: `held at ${phase}`, host })
      await held
    },
    releaseUpgrade: async () => {
      await root(`rm -f ${hook} ${dropIn} && systemctl daemon-reload`)
    },
    status,
  }
}

interface Needs {
  host: string
  /** Default: the lab's agents. */
  subject?: Subject
  root: Exec
  write: (path: string, text: string, options?: { mode?: string }) => Promise<void>
  /** Waits for a line on the console that comes after this call. */
  serial: (pattern: RegExp, name: string, limit: number) => Promise<string>
  note: Note
  say: (line: string) => void
  seconds: (limit: number) => number
}

/** @throws NoJson when the agent wrote something else */
export const parseStatus = (text: string, statusFile: string): UpgradeStatus | undefined =>
  text.trim() ? agentJson<UpgradeStatus>(text, statusFile) : undefined
