import { mayFail, mayFailHint } from '../lab-settings.ts'
import type { Host } from '../nix/host.ts'
import { type Answer, type Probe } from '../ssh/probes.ts'
import { quote } from '../quote.ts'

export type State = 'pass' | 'fail' | 'n/a'

export interface Result {
  check: string
  state: State
  /** What was found; for `n/a` the reason. */
  found: string
  expected?: string
  /** What to do when the check fails. */
  hint?: string
}

/** One question to a guest, and how to judge its answer against the configuration. */
export interface Check {
  name: string
  /** A bash snippet, run as the primary user. */
  probe: string
  /** The probe starts no program unless something is wrong, and does not wait. */
  quick?: true
  /** Why this guest cannot have what is checked; the guest is not asked then. */
  unavailable?: string
  expected: string
  hint?: string
  holds: (answer: Answer) => boolean
  /** The reason, from the answer, why there is nothing to judge; undefined when there is. */
  without?: (answer: Answer) => string | undefined
  /** The part of the answer to show. Default: its first line. */
  show?: (answer: Answer) => string
}

/** Probes for declared services, because a unit that is active may still not answer. */
const services: Record<string, { probe: (host: Host) => string; says: RegExp; quick?: true }> = {
  // the probe runs over an SSH login, which proves that sshd works
  openssh: { probe: () => 'echo "$SSH_CONNECTION"', says: /^\S+ \d+ \S+ 22$/m, quick: true },
  ssh: {
    probe: () => 'read -r line < <(ssh -G localhost) && echo "$line"',
    says: /^host localhost$/m,
  },
  syncthing: {
    probe: ({ facts }) => httpGet(facts.syncthingAddress, '/rest/noauth/health'),
    says: /"OK"/,
  },
  tailscale: { probe: () => 'tailscale status --json', says: /"BackendState"/ },
  atuin: { probe: () => 'atuin --version', says: /^atuin \d/ },
}

/**
 * Shell for an HTTP GET without a program; the address is `host:port`. Retries for 60 s while a service
 * that has just started refuses the connection, and stops reading after 10 s of silence.
 */
function httpGet(address: string, path: string): string {
  const [host = '', port = ''] = address.split(':')
  const device = `/dev/tcp/${quote(host)}/${quote(port)}`
  const request = `GET ${path} HTTP/1.0\\r\\nHost: ${address}\\r\\n\\r\\n`
  return [
    `until { exec 3<>${device}; } 2>/dev/null; do [ $SECONDS -lt 60 ] || exit 1; sleep 0.5; done`,
    `printf '${request}' >&3`,
    'while IFS= read -r -t 10 line <&3; do echo "$line"; done',
  ].join('; ')
}

const is = (text: string) => (answer: Answer) => answer.code === 0 && answer.text === text

/** All checks that `verify` makes of a guest whose configuration is known. */
export function checksOf(host: Host): Check[] {
  const { facts, toplevel } = host
  const link = (name: string, path: string): Check => ({
    name,
    quick: true,
    // runs a program only to show the other path when they differ
    probe: `[[ ${path} -ef ${toplevel} ]] && echo ${toplevel} || readlink -f ${path}`,
    expected: toplevel,
    holds: is(toplevel),
  })
  // NixOS accepts underscores, and systemd leaves them out (hostname_cleanup in its hostname-util.c)
  const kernelName = facts.hostName.replaceAll('_', '')
  return [
    {
      name: 'host name',
      quick: true,
      probe: 'read -r name </proc/sys/kernel/hostname && echo "$name"',
      expected: kernelName,
      holds: is(kernelName),
    },
    link('running generation', '/run/current-system'),
    link('system profile', '/nix/var/nix/profiles/system'),
    ...facts.declared.map((service) => serviceCheck(host, service)),
    ...(facts.autoUpgradeEnable ? [timerCheck(host)] : []),
    ...(facts.clones.flake === null ? [] : [cloneCheck(facts.clones.flake)]),
    ...(facts.goldenEnable ? [goldenCheck] : []),
    ...othersAgents(host),
    ...facts.secrets.map(secretCheck),
    // what the host declares but this guest cannot have, such as its secrets
    ...Object.keys(facts.unavailable)
      .filter((name) => !facts.declared.includes(name))
      .map((name) => serviceCheck(host, name)),
    headlessCheck(host),
    ...failureChecks(facts),
    {
      name: `nix as ${facts.primaryUser}`,
      // goes through the daemon, which a user's nix needs for everything
      probe: 'nix-store --query --hash /run/current-system',
      expected: 'an answer from the store',
      holds: ({ code, text }) => code === 0 && /^sha256:\w{52}$/.test(text),
    },
    {
      name: `jj as ${facts.primaryUser}`,
      // testing with a real repository would take as long as all other probes together
      probe: 'jj config path --user && [ -w "$HOME" ]',
      expected: 'its configuration in the home',
      holds: ({ code, text }) => code === 0 && text.startsWith('/home/'),
    },
    {
      name: `chezmoi as ${facts.primaryUser}`,
      probe: "chezmoi execute-template '{{ .chezmoi.username }}'",
      expected: facts.primaryUser,
      holds: is(facts.primaryUser),
    },
  ]
}

/** Checks that the guest has no graphical programs. */
const headlessCheck = ({ guest }: Host): Check =>
  guest === 'nixos'
    ? {
        name: 'headless userland',
        // NixOS has almost nothing in /usr; its programs are in the closure of the running system
        probe: 'nix-store --query --requisites /run/current-system',
        expected: 'no graphical package',
        holds: ({ code, text }) =>
          code === 0 && text !== '' && judgeClosure(text.split('\n')).state === 'pass',
        show: ({ code, text }) =>
          code === 0 ? judgeClosure(text.split('\n')).found : (text.split('\n')[0] ?? ''),
      }
    : {
        name: 'headless userland',
        quick: true,
        probe: `for file in /usr/lib/*/lib{gtk-[34],webkit2gtk,Qt[56]Core,wayland-server}* /usr/bin/{Xorg,Xwayland,sway}*; do
        [ ! -e "$file" ] || echo "$file"; done`,
        expected: 'none',
        holds: is(''),
        show: none,
      }

function serviceCheck({ facts, ...host }: Host, service: string): Check {
  const answer = services[service]
  const unit = facts.units[service]
  const active = unit ? `unit ${quote(unit)} && ` : ''
  const unknown = unit || answer ? undefined : 'the lab knows no probe for it'
  return {
    name: service,
    ...(!answer || answer.quick ? { quick: true } : {}),
    probe: `${active}{ ${answer?.probe({ facts, ...host }) ?? 'true'}; }`,
    unavailable: facts.unavailable[service] ?? unknown,
    expected: `${unit ? `${unit} active` : 'there'}${answer ? ' and answering' : ''}`,
    holds: ({ text }) =>
      (!unit || text.startsWith('loaded active ')) && (!answer || answer.says.test(text)),
    show: ({ text }) => text.replaceAll(/\s+/g, ' ').slice(0, 100),
  }
}

/**
 * Checks whether a VM has logged in to tailscale. That needs a key, and a route to tailscale's coordination
 * server; without them the check does not apply.
 * @param key whether LAB_TAILSCALE_AUTHKEY is set
 */
export function tailscaleLogin({ facts, name }: Host, openUplink: boolean, key: boolean): Check[] {
  if (!facts.declared.includes('tailscale') || facts.unavailable['tailscale']) return []
  const closed = `its uplink is closed: just down ${name}, and just deploy-test-vm ${name} --open-uplink`
  const state = ({ text }: Answer): string => /"BackendState":\s*"(\w+)"/.exec(text)?.[1] ?? ''
  const reason = key ? (openUplink ? undefined : closed) : 'LAB_TAILSCALE_AUTHKEY is not set'
  return [
    {
      name: 'tailscale login',
      // the login may still be in progress
      probe: `ask() { tailscale status --json --peers=false; }
        until [[ $(ask) == *'"Running"'* ]] || [ $SECONDS -ge 60 ]; do sleep 1; done; ask`,
      ...(reason === undefined ? {} : { unavailable: reason }),
      expected: 'Running',
      holds: (answer) => state(answer) === 'Running',
      show: (answer) => state(answer) || (answer.text.split('\n')[0] ?? ''),
    },
  ]
}

const timerCheck = ({ facts }: Host): Check => ({
  name: 'auto-upgrade timer',
  quick: true,
  // an elapsed timer is active too, but never fires again; during an upgrade the timer is `running`
  probe: `unit nix-local-upgrade.timer && while read -r line; do
    case $line in OnCalendar=*) echo "\${line#*=}" ;; esac; done </etc/systemd/system/nix-local-upgrade.timer`,
  expected: `waiting, ${facts.schedule}`,
  holds: ({ code, text }) =>
    code === 0 &&
    ['waiting', 'running'].some((state) => text === `loaded active ${state}\n${facts.schedule}`),
  show: commas,
})

/**
 * The clone that the host is upgraded from is made by its owner, so a new VM may have none. Until there is
 * one the upgrade fails each time the timer fires, and the check does not apply.
 */
const cloneCheck = (clone: string): Check => ({
  name: 'clone to upgrade from',
  quick: true,
  probe: `[[ -e ${quote(clone)} ]] && echo there || echo none`,
  expected: 'there',
  holds: is('there'),
  without: ({ text }) =>
    text === 'none' ? `no \`${clone}\` yet: jj git clone --colocate <url> ${clone}` : undefined,
})

function failedUnits({ agents, clones }: Host['facts']): string {
  if (clones.flake === null) return 'failed'
  return `[[ -e ${quote(clones.flake)} ]] && failed || failed ${quote(agents.upgrade.unit)}.service`
}

/** Checks for failed units. Those that `lab.toml` lets fail have a check of their own, `n/a` when any has failed. */
function failureChecks(facts: Host['facts']): Check[] {
  const may = (line: string): boolean => mayFail(line.split(' ')[0]!, facts.mayFail)
  const excused = ({ text }: Answer): string[] => text.split('\n').filter(may)
  const failed = ({ text }: Answer): string[] =>
    text.split('\n').filter((line) => line && !may(line))
  const probe = failedUnits(facts)
  const all: Check = {
    name: 'failed units',
    probe,
    expected: 'none',
    holds: (answer) => answer.code === 0 && failed(answer).length === 0,
    show: (answer) => failed(answer).join(', ') || 'none',
    hint: mayFailHint,
  }
  if (facts.mayFail.length === 0) return [all]
  const some: Check = {
    name: 'units that may fail',
    probe,
    expected: 'none failed',
    holds: ({ code }) => code === 0,
    without: (answer) =>
      excused(answer).length > 0 ? `${excused(answer).join(', ')}, by lab.toml` : undefined,
    show: none,
  }
  return [all, some]
}

const goldenCheck: Check = {
  name: 'golden validation',
  quick: true,
  probe: 'unit golden-boot-validation.service',
  // it would be `failed` after a failure, and `inactive` before it has run
  expected: 'loaded active exited',
  holds: is('loaded active exited'),
}

/**
 * Checks agents that the flake brings itself, by the units that lab.toml names. The lab knows nothing else
 * about these units. One that has not run yet is inactive, which is not an error.
 */
function othersAgents({ facts }: Host): Check[] {
  const { upgrade, sync, golden } = facts.agents
  const found = [
    ...(facts.autoUpgradeEnable ? [] : [upgrade]),
    ...(facts.goldenEnable ? [] : [golden]),
    ...(facts.clones.dotfilesBranch === null ? [sync] : []),
  ]
  return found
    .filter(({ present }) => present)
    .map(({ unit, timer }): Check =>
      timer
        ? {
            name: unit,
            quick: true,
            probe: `unit ${unit}.timer`,
            expected: 'loaded active waiting',
            // the timer's service may be running at the moment
            holds: ({ text }) => /^loaded active (waiting|running)$/.test(text),
          }
        : {
            name: unit,
            // systemd unloads a unit that is started only now and then, so `unit` would not find it
            probe: `systemctl show --value --property=LoadState --property=ActiveState ${unit}.service`,
            expected: 'loaded, and not failed',
            holds: ({ text }) => /\bloaded\b/.test(text) && !/\bfailed\b/.test(text),
            show: commas,
          },
    )
}

/** Checks a secret's file, which is missing when the secret could not be decrypted. */
const secretCheck = ({ path, owner, mode }: Host['facts']['secrets'][number]): Check => ({
  name: `secret ${path.split('/').at(-1)}`,
  probe: `[ -s ${quote(path)} ] && stat --dereference --format '%U %a' ${quote(path)}`,
  expected: `${owner} ${mode.replace(/^0/, '')}`,
  holds: is(`${owner} ${mode.replace(/^0/, '')}`),
})

const commas = ({ text }: Answer): string => text.replaceAll('\n', ', ')
const none = (answer: Answer): string => commas(answer) || 'none'

/** Names of packages that no headless host needs (incident: 996 paths with GTK and WebKit). */
const graphical = /-(gtk[+\d]|webkitgtk|qt(base|5|6)|wayland-\d|xorg-server|xwayland|mesa-\d)/i

/** Looks for graphical packages among the store paths of a closure. */
export function judgeClosure(paths: string[]): Result {
  const found = paths.filter((path) => graphical.test(path)).map((path) => path.slice(44))
  return {
    check: 'headless closure',
    state: found.length > 0 ? 'fail' : 'pass',
    found: found.slice(0, 3).join(', ') || `none in ${paths.length} paths`,
    expected: 'no graphical package',
  }
}

/**
 * Judges how a user may log in: only by key, and with the lab's key.
 * @param methods methods that sshd offers to that user
 * @param key whether the lab's key is accepted
 */
export function judgeLogin(user: string, methods: string[], key: boolean): Result {
  const found = `${methods.join(', ') || 'nothing'}${key ? '' : ', without the key of the lab'}`
  const state = found === 'publickey' ? 'pass' : 'fail'
  return { check: `SSH as ${user}`, state, found, expected: 'publickey' }
}

/** Judges the answers; a check without an answer has failed. */
export const judge = (checks: Check[], given: Record<string, Answer>): Result[] =>
  checks.map((check, index) => {
    const { name, expected, unavailable } = check
    if (unavailable !== undefined) return { check: name, state: 'n/a', found: unavailable }
    const answer = given[`p${index}`]
    if (!answer) return { check: name, state: 'fail', found: 'no answer in time', expected }
    const reason = check.without?.(answer)
    if (reason !== undefined) return { check: name, state: 'n/a', found: reason }
    const found = check.show?.(answer) ?? answer.text.split('\n')[0] ?? ''
    if (check.holds(answer)) return { check: name, state: 'pass', found, expected }
    return { check: name, state: 'fail', found, expected, hint: check.hint }
  })

/** The probes of checks, by the names that `judge` looks up. */
export const probesOf = (checks: Check[]): Record<string, Probe> =>
  Object.fromEntries(
    checks.flatMap(({ probe, quick, unavailable }, index) =>
      unavailable === undefined
        ? [[`p${index}`, { snippet: probe, programs: quick !== true }]]
        : [],
    ),
  )
