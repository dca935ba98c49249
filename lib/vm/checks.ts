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
  /** What to do where it fails. */
  hint?: string
}

/** One thing to ask a guest, and how to judge its answer against the configuration. */
export interface Check {
  name: string
  /** A bash snippet, run as the primary user. */
  probe: string
  /** It starts no program while all is well, and waits for nothing. */
  quick?: true
  /** Why the guest cannot have the thing; it is not asked then. */
  unavailable?: string
  expected: string
  hint?: string
  holds: (answer: Answer) => boolean
  /** Why there is nothing to judge, by the answer; undefined where there is. */
  without?: (answer: Answer) => string | undefined
  /** What to show of the answer. Default: its first line. */
  show?: (answer: Answer) => string
}

/** How a declared service is asked whether it works: a unit that is active may still not answer. */
const services: Record<string, { probe: (host: Host) => string; says: RegExp; quick?: true }> = {
  // this very login came through it: asked over its own connection, it has answered
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
 * HTTP without a program: the address is `host:port`. A service that was started a moment ago may
 * refuse for as long as 60 s; silence of 10 s is an answer, too.
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

/** Everything that `verify` asks of a guest whose configuration is known. */
export function checksOf(host: Host): Check[] {
  const { facts, toplevel } = host
  const link = (name: string, path: string): Check => ({
    name,
    quick: true,
    // a program only to say what it is instead
    probe: `[[ ${path} -ef ${toplevel} ]] && echo ${toplevel} || readlink -f ${path}`,
    expected: toplevel,
    holds: is(toplevel),
  })
  return [
    {
      name: 'host name',
      quick: true,
      probe: 'read -r name </proc/sys/kernel/hostname && echo "$name"',
      expected: facts.hostName,
      holds: is(facts.hostName),
    },
    link('running generation', '/run/current-system'),
    link('system profile', '/nix/var/nix/profiles/system'),
    ...facts.declared.map((service) => serviceCheck(host, service)),
    ...(facts.autoUpgradeEnable ? [timerCheck(host)] : []),
    ...(facts.clones.flake === null ? [] : [cloneCheck(facts.clones.flake)]),
    ...(facts.goldenEnable ? [goldenCheck] : []),
    ...othersAgents(host),
    ...facts.secrets.map(secretCheck),
    // what else the host declares and this guest cannot have, such as its secrets
    ...Object.keys(facts.unavailable)
      .filter((name) => !facts.declared.includes(name))
      .map((name) => serviceCheck(host, name)),
    headlessCheck(host),
    ...failureChecks(facts),
    {
      name: `nix as ${facts.primaryUser}`,
      // through the daemon, which a user's nix needs for all that it does
      probe: 'nix-store --query --hash /run/current-system',
      expected: 'an answer from the store',
      holds: ({ code, text }) => code === 0 && /^sha256:\w{52}$/.test(text),
    },
    {
      name: `jj as ${facts.primaryUser}`,
      // a whole repository would take as long as all other probes together
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

/** Programs of a display, among what the guest itself has. */
const headlessCheck = ({ guest }: Host): Check =>
  guest === 'nixos'
    ? {
        name: 'headless userland',
        // there is next to nothing in /usr: all that NixOS has is in the closure of what runs
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
 * Whether a VM has logged in to tailscale. To be asked it must have been given a key, and a way to tailscale's
 * coordination server.
 * @param key whether there is a LAB_TAILSCALE_AUTHKEY
 */
export function tailscaleLogin({ facts, name }: Host, openUplink: boolean, key: boolean): Check[] {
  if (!facts.declared.includes('tailscale') || facts.unavailable['tailscale']) return []
  const closed = `its uplink is closed: just down ${name}, and just deploy-test-vm ${name} --open-uplink`
  const state = ({ text }: Answer): string => /"BackendState":\s*"(\w+)"/.exec(text)?.[1] ?? ''
  const reason = key ? (openUplink ? undefined : closed) : 'LAB_TAILSCALE_AUTHKEY is not set'
  return [
    {
      name: 'tailscale login',
      // the login may still be on its way
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
  // a timer that has elapsed is active, and has no next time; one whose upgrade is at work is running
  probe: `unit nix-local-upgrade.timer && while read -r line; do
    case $line in OnCalendar=*) echo "\${line#*=}" ;; esac; done </etc/systemd/system/nix-local-upgrade.timer`,
  expected: `waiting, ${facts.schedule}`,
  holds: ({ code, text }) =>
    code === 0 &&
    ['waiting', 'running'].some((state) => text === `loaded active ${state}\n${facts.schedule}`),
  show: commas,
})

/**
 * What the host is upgraded from is its owner's to clone, so a VM that was just made has none; until then
 * its upgrade fails each time that the timer fires, and there is nothing to judge.
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

/** Which units failed; what `lab.toml` lets fail is told apart, and never counts as held. */
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
  // one that failed would be `failed`, one that has not run yet `inactive`
  expected: 'loaded active exited',
  holds: is('loaded active exited'),
}

/**
 * Agents of a flake's own, by the units that lab.toml names: what can be asked of a unit that the lab
 * knows nothing else of. One that has not run yet is inactive, which is no fault of it.
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
            // a timer's service may run just now
            holds: ({ text }) => /^loaded active (waiting|running)$/.test(text),
          }
        : {
            name: unit,
            // nothing keeps a unit in memory that is only started now and then
            probe: `systemctl show --value --property=LoadState --property=ActiveState ${unit}.service`,
            expected: 'loaded, and not failed',
            holds: ({ text }) => /\bloaded\b/.test(text) && !/\bfailed\b/.test(text),
            show: commas,
          },
    )
}

/** A secret that could not be decrypted is a file that is not there. */
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
 * Judges how a user may log in: by key alone, and with the lab's key.
 * @param methods what sshd offers to that user
 */
export function judgeLogin(user: string, methods: string[], key: boolean): Result {
  const found = `${methods.join(', ') || 'nothing'}${key ? '' : ', without the key of the lab'}`
  const state = found === 'publickey' ? 'pass' : 'fail'
  return { check: `SSH as ${user}`, state, found, expected: 'publickey' }
}

/** Judges the answers; a guest that gave none has failed. */
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

/** What to ask, by the name under which `judge` looks for the answers. */
export const probesOf = (checks: Check[]): Record<string, Probe> =>
  Object.fromEntries(
    checks.flatMap(({ probe, quick, unavailable }, index) =>
      unavailable === undefined
        ? [[`p${index}`, { snippet: probe, programs: quick !== true }]]
        : [],
    ),
  )
