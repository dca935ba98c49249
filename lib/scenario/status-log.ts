import type { OracleRow } from '../report/result.ts'
import { agentJson } from './agent-json.ts'
import { unitsByHand } from './host-module.ts'
import { syncForm, upgradeForm } from './status-form.ts'

/** File of a guest with the states that its watcher saw; emptied when a baseline is made. */
export const statusLog = '/var/lib/lab-status.log'

const statusFile = '/var/lib/nix-local-upgrade/status.json'
const syncFile = '/var/lib/chezmoi-sync/status.json'

/** Bash that reads a file as the watcher does. */
const look = `look() { # look <file>: its text in \`now\`; fails where there is no file
  local opened=
  { opened=1; IFS= read -r -d '' now; } 2>/dev/null <"$1"
  [[ -n $opened ]]
}`

/** Bash that prints each current status on one line, as the watcher logs it. */
export const statesNow = `${look}
for file in ${statusFile} ${syncFile}; do
  ! look "$file" || printf '%s\\n' "\${now//$'\\n'/ }"
done`

/**
 * The watcher: from the start of a guest on it logs each state of the agents' status files. For an upgrade it also logs
 * whether, at that moment, the system of `from` runs, and whether the system of `to` is the profile's generation of
 * that number, and runs. It looks twenty times a second, with bash's builtins only, so that an emulated guest is not
 * slowed down.
 */
export const watcher = `#!/bin/bash
# a pipe that never delivers anything, to sleep on
exec 3<> <(:)
read -r boot </proc/sys/kernel/random/boot_id
upgrade=none sync=none begun=
# a power cut may have halved the last line
echo >>${statusLog}
began='"from":\\{[^}]*"toplevel":"(/[^"]+)"'
named='"to":\\{[^}]*"toplevel":"(/[^"]+)","generation":([0-9a-z]+)'
system=/nix/var/nix/profiles/system
${look}
while :; do
  if look ${statusFile} && [[ $now != "$upgrade" ]]; then
    upgrade=$now from=no profile=no runs=no
    if [[ $now =~ $began && /run/current-system -ef \${BASH_REMATCH[1]} ]]; then from=yes; fi
    if [[ $now =~ $named ]]; then
      toplevel=\${BASH_REMATCH[1]} link=$system-\${BASH_REMATCH[2]}-link
      [[ \${BASH_REMATCH[2]} != null ]] || link=$system
      [[ ! $system -ef $toplevel || ! $link -ef $toplevel ]] || profile=yes
      [[ ! /run/current-system -ef $toplevel ]] || runs=yes
    fi
    printf '%s upgrade %s %s %s %s end\\n' "$boot" "$from" "$profile" "$runs" "\${now//$'\\n'/ }" >>${statusLog}
  fi
  if look ${syncFile} && [[ $now != "$sync" ]]; then
    sync=$now
    printf '%s sync - - - %s end\\n' "$boot" "\${now//$'\\n'/ }" >>${statusLog}
  fi
  # what is seen from here on was not left by an earlier run
  [[ -n $begun ]] || printf '%s begins\\n' "$boot" >>${statusLog}
  begun=yes
  read -r -t 0.05 -u 3 _
done
`

const watcherFile = '/var/lib/lab-status-watcher'
/** Unit of the watcher. */
export const watcherUnit = 'lab-status-watcher.service'
const unit = `[Unit]
Description=Watcher of the agents' status, for the lab
DefaultDependencies=no
After=local-fs.target
[Service]
Environment=PATH=/run/current-system/sw/bin:/usr/bin
ExecStart=/bin/sh -c 'exec bash ${watcherFile}'
Restart=on-failure
`

/** Shell commands that install the watcher in a guest, where no switch removes it, and start it. */
export const installWatcher = `cat >${watcherFile} <<'LAB'
${watcher}LAB
mkdir -p ${unitsByHand}/sysinit.target.wants && cd ${unitsByHand}
cat >${watcherUnit} <<'LAB'
${unit}LAB
ln -sfn ../${watcherUnit} sysinit.target.wants/
systemctl daemon-reload
: >${statusLog}
systemctl restart ${watcherUnit}`

/** One state of a status file, as the watcher saw it. */
export interface Seen {
  boot: string
  of: 'upgrade' | 'sync'
  /** Whether `from.toplevel` ran. */
  from: boolean
  /** Whether `to.toplevel` was the system profile, of that generation, and ran. */
  profile: boolean
  runs: boolean
  /** Left by an earlier run: it was there when the watcher started in that boot. */
  left?: true
  text: string
}

/** Reads the watcher's log: a state for each line that is complete. */
export function readStatusLog(text: string): Seen[] {
  const begun = new Set<string>()
  return text.split('\n').flatMap((line): Seen[] => {
    const [, begins] = /^(\S+) begins$/.exec(line) ?? []
    if (begins !== undefined) begun.add(begins)
    const [, boot, of, from, profile, runs, rest] =
      /^(\S+) (upgrade|sync) (\S+) (\S+) (\S+) (.*) end$/s.exec(line) ?? []
    if (boot === undefined) return []
    const known = { from: from === 'yes', profile: profile === 'yes', runs: runs === 'yes' }
    const state = { boot, of: of as Seen['of'], ...known }
    return [{ ...state, text: rest!, ...(begun.has(boot) ? {} : { left: true as const }) }]
  })
}

/** Phases of an upgrade in their order; `rollback` comes after any of them, and is the last. */
const order = [
  ...['lock', 'recover', 'hooks', 'dotfiles', 'fetch', 'rebase', 'build', 'preflight'],
  ...['switch', 'validate', 'clean', 'done', 'rollback'],
]

/** Phases in which an upgrade has changed nothing yet, and nothing of an earlier one is left. */
const unchanged = ['hooks', 'dotfiles', 'fetch']

interface Status {
  phase?: string
  host?: string
  outcome?: string | null
  reason?: string
  started?: string
  finished?: string | null
  to?: { toplevel?: string; generation?: number | null } | null
}

/**
 * Generations that an upgrade built and then rolled back, and that no upgrade has deployed, before or since. On a host
 * that is set to keep what failed, none is rejected.
 */
export function rejected(seen: Seen[]): string[] {
  const found = new Set<string>()
  // a commit that reverts to one of these, and now fails, does not remove that generation
  const good = new Set<string>()
  for (const { of, text } of seen) {
    const status = of === 'upgrade' ? parse(text) : undefined
    const toplevel = status?.to?.toplevel
    if (!status || !toplevel) continue
    if (isHeld(status)) good.add(toplevel)
    const kept = /; kept, as/.test(status.reason ?? '')
    if (/^(validation|switch)-failed$/.test(status.outcome ?? '') && !kept) found.add(toplevel)
  }
  return [...found].filter((toplevel) => !good.has(toplevel))
}

/** Whether any upgrade has reported success. */
export const hasHeld = (seen: Seen[]): boolean =>
  seen.some(({ of, text }) => of === 'upgrade' && isHeld(parse(text)))

const isHeld = (status: Status | undefined): boolean =>
  /^(upgraded|up-to-date)$/.test(status?.outcome ?? '')

interface Known {
  /** The host that the status must name; any where undefined. */
  host?: string
  /** Contents of the files at the end: if the watcher has not seen these, it has missed something. */
  states?: string[]
  /** Whether the watcher still ran at the end. */
  watched?: boolean
}

/** Checks that each status was complete and true at its moment, and that their sequence is possible. */
export function judgeStatus(
  seen: Seen[],
  { host, states = [], watched = true }: Known = {},
): OracleRow {
  const expected = 'whole, true and in order at each moment'
  const missed = states.filter((now) => !seen.some(({ text }) => text.trim() === now.trim()))
  const found = [
    ...seen.flatMap((one, index) => wrong(one, seen.slice(0, index), host)),
    ...(watched && missed.length === 0 ? [] : ['nobody has watched it to the end']),
  ].join('; ')
  if (seen.length === 0 && !found) {
    return { name: 'status', state: 'n/a', expected, found: 'no agent has written one' }
  }
  return {
    name: 'status',
    state: found ? 'failed' : 'ok',
    expected,
    found: found || `${expected}: ${seen.length} states`,
  }
}

function wrong(one: Seen, before: Seen[], host: string | undefined): string[] {
  const status = parse(one.text)
  if (!status) return [`the status of ${one.of} was not whole: \`${one.text.slice(0, 60)}\``]
  const said = one.left ? [] : unseen(status, one, before)
  const misfit = one.of === 'sync' ? syncForm(status) : upgradeForm(status)
  if (misfit !== undefined) said.push(`in the status of ${one.of} is ${misfit}`)
  if (host !== undefined && status.host !== host) said.push(`it names the host ${status.host}`)
  if (one.of === 'sync') return said
  const { phase = '', outcome, started, finished } = status
  if (!one.left && unchanged.includes(phase) && outcome === null && !one.from)
    said.push(`in ${phase} it did not begin with what ran`)
  const place = order.indexOf(phase)
  if (place < 0) said.push(`\`${phase}\` is no phase`)
  if ((outcome === null) !== (finished === null)) {
    said.push(`in ${phase} it had ${outcome ? 'an outcome and no end' : 'an end and no outcome'}`)
  }
  // both are in UTC, which sorts as text
  if (finished && started && finished < started)
    said.push(`it ended before it began, at ${finished}`)
  const earlier = before.filter(({ of, boot }) => of === 'upgrade' && boot === one.boot)
  if (
    !one.left &&
    (outcome === 'upgraded' || outcome === 'up-to-date') &&
    !(one.profile && one.runs)
  ) {
    const what = one.profile ? 'did not run' : 'was not the profile'
    said.push(`it said \`${outcome}\` of a generation that ${what}`)
  }
  // nothing changes after the end, so the watcher cannot have looked too late
  const { generation } = status.to ?? {}
  if (!one.left && outcome !== null && generation && !one.profile)
    said.push(`it said \`${outcome}\` of generation ${generation}, which that is not`)
  const last = earlier.at(-1)
  const former = last && parse(last.text)
  // a watcher that was restarted sees the old state again
  if (!former || former.started !== started || last.text === one.text) return said
  // times are in whole seconds: this may be the next run after one that took less than a second
  if (former.finished === started) return said
  if (former.outcome !== null) said.push(`it went on to ${phase} after \`${former.outcome}\``)
  // a final status names the phase that failed; after a run that was killed in its first second, another may have begun
  // in the same second, with the first phase that has a status
  else if (phase !== 'recover' && outcome === null && place < order.indexOf(former.phase ?? '')) {
    said.push(`${phase} came after ${former.phase}`)
  }
  return said
}

/** What an agent failed to report while it worked, although the watcher looked twenty times a second. */
function unseen({ outcome, started, finished }: Status, one: Seen, before: Seen[]): string[] {
  if (!outcome) return []
  const working = before
    .filter(({ of, boot }) => of === one.of && boot === one.boot)
    .map(({ text }) => parse(text))
    .filter((status) => status?.started === started && status?.outcome === null)
  // both take longer than a look; a system that booted after a power cut is validated without a switch
  const phases = ['switch', 'validate']
  if (outcome === 'upgraded' && !working.some((status) => phases.includes(status?.phase ?? '')))
    return ['it said `upgraded` and was seen neither to switch nor to judge that']
  const seconds = (Date.parse(finished ?? '') - Date.parse(started ?? '')) / 1000
  // on a full disk only the final status can be written, over the old one
  const full = /no-space|no space left/i.test(one.text)
  const silent = seconds >= 3 && working.length === 0 && !full
  return silent ? [`it worked for ${seconds} s and did not say so`] : []
}

function parse(text: string): Status | undefined {
  try {
    return agentJson<Status>(text, 'a status')
  } catch {
    return undefined
  }
}
