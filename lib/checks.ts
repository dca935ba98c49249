import type { Host } from './host.ts'
import { quote, type Answer } from './probes.ts'

export type State = 'pass' | 'fail' | 'n/a'

export interface Result {
  check: string
  state: State
  /** What was found; for `n/a` the reason. */
  found: string
  expected?: string
}

/** One thing to ask a guest, and how to judge its answer against the configuration. */
export interface Check {
  name: string
  /** Shell command, run as root; undefined when the guest cannot have the thing. */
  probe?: string
  unavailable?: string
  expected: string
  holds: (answer: Answer) => boolean
  /** What to show of the answer. Default: its first line. */
  show?: (answer: Answer) => string
}

/** How a declared service is asked whether it works: a unit that is active may still not answer. */
const answers: Record<string, { probe: (host: Host) => string; says: RegExp }> = {
  openssh: {
    probe: () => `bash -c 'exec 3<>/dev/tcp/127.0.0.1/22; head -c 8 <&3'`,
    says: /^SSH-2\.0/,
  },
  ssh: { probe: () => 'ssh -G localhost', says: /^host localhost/m },
  syncthing: {
    probe: ({ facts }) => `curl -fsS -m 10 http://${facts.syncthingAddress}/rest/noauth/health`,
    says: /"status": "OK"/,
  },
  tailscale: { probe: () => 'tailscale status --json', says: /"BackendState"/ },
  atuin: { probe: (host) => asUser(host, 'atuin --version'), says: /^atuin \d/ },
}

const asUser = ({ facts }: Host, command: string): string =>
  `runuser --login ${quote(facts.primaryUser)} --command ${quote(command)}`

const ended = ({ code }: Answer): boolean => code === 0
const is = (text: string) => (answer: Answer) => ended(answer) && answer.text === text
const matches = (pattern: RegExp) => (answer: Answer) => ended(answer) && pattern.test(answer.text)

/** Everything that `verify` asks of a guest whose configuration is known. */
export function checksOf(host: Host): Check[] {
  const { facts, toplevel } = host
  return [
    { name: 'host name', probe: 'hostname', expected: facts.hostName, holds: is(facts.hostName) },
    ...['/run/current-system', '/nix/var/nix/profiles/system'].map((link) => ({
      name: link === '/run/current-system' ? 'running generation' : 'system profile',
      probe: `readlink -f ${link}`,
      expected: toplevel,
      holds: is(toplevel),
    })),
    ...facts.declared.map((service) => serviceCheck(host, service)),
    ...upgradeChecks(host),
    ...goldenChecks(host),
    {
      name: 'headless',
      // the closure, and on Debian the libraries beside it
      probe: `{ nix-store --query --requisites /run/current-system; ldconfig -p | sed 's/ (.*//'; } | grep -E -m 3 '${graphical}' || true`,
      expected: 'no graphical library',
      holds: is(''),
      show: ({ text }) => text.replaceAll('\n', ', ') || 'none',
    },
    {
      name: 'failed units',
      probe: 'systemctl --failed --plain --no-legend',
      expected: 'none',
      holds: is(''),
      show: ({ text }) =>
        text
          .split('\n')
          .map((line) => line.split(' ')[0])
          .join(', ') || 'none',
    },
    {
      name: `nix as ${facts.primaryUser}`,
      probe: asUser(host, 'nix eval --expr 20+22'),
      expected: '42',
      holds: is('42'),
    },
    {
      name: `jj as ${facts.primaryUser}`,
      probe: asUser(
        host,
        'd=$(mktemp -d) && jj git init --quiet "$d" && jj -R "$d" log --no-graph -r @ -T \'"works"\'; rm -rf "$d"',
      ),
      expected: 'works',
      holds: is('works'),
    },
    {
      name: `chezmoi as ${facts.primaryUser}`,
      probe: asUser(host, "chezmoi execute-template '{{ .chezmoi.username }}'"),
      expected: facts.primaryUser,
      holds: is(facts.primaryUser),
    },
    ...[facts.primaryUser, 'root'].map((user) => ({
      name: `SSH as ${user}`,
      // the methods that sshd itself offers to one who has no key, and the key that it would take
      probe: `test -s /etc/ssh/authorized_keys.d/${user} && ssh -o BatchMode=yes -o PubkeyAuthentication=no -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null ${user}@127.0.0.1 true 2>&1 | grep -o 'denied (.*)'`,
      expected: 'denied (publickey)',
      holds: is('denied (publickey)'),
      show: ({ text }: Answer) => text || 'no answer, or no key',
    })),
  ]
}

/** Names of libraries that no headless host needs (incident: 996 paths with GTK and WebKit). */
const graphical = '(^|[-/])(lib)?(gtk[-+234]|webkit|qt[56]|wayland|xorg-server|Xwayland|mesa-[0-9])'

function serviceCheck(host: Host, service: string): Check {
  const { units, unavailable } = host.facts
  const answer = answers[service]
  const unit = units[service]
  const active = unit ? `systemctl is-active ${quote(unit)} && ` : ''
  return {
    name: service,
    probe: `${active}${answer?.probe(host) ?? 'true'}`,
    unavailable:
      unavailable[service] ?? (unit || answer ? undefined : 'the lab knows no probe for it'),
    expected: `${unit ? `${unit} active` : 'there'}${answer ? ' and answering' : ''}`,
    holds: (given) =>
      ended(given) && (!answer || answer.says.test(given.text.replace(/^active\n/, ''))),
    show: ({ text }) => text.replaceAll(/\s+/g, ' ').slice(0, 100),
  }
}

function upgradeChecks({ facts }: Host): Check[] {
  if (!facts.autoUpgradeEnable) return []
  return [
    {
      name: 'auto-upgrade timer',
      probe:
        'systemctl show nix-local-upgrade.timer -p ActiveState -p NextElapseUSecRealtime -p TimersCalendar',
      expected: `armed, ${facts.schedule}`,
      // a timer that is active can have no next time at all
      holds: matches(
        /^(?=[^]*^ActiveState=active$)(?=[^]*^NextElapseUSecRealtime=\S)[^]*OnCalendar=/m,
      ),
      show: unitState,
    },
  ]
}

function goldenChecks({ facts }: Host): Check[] {
  if (!facts.goldenEnable) return []
  return [
    {
      name: 'golden validation',
      probe: 'systemctl show golden-boot-validation.service -p LoadState -p Result -p ActiveState',
      expected: 'loaded, active, success',
      holds: ({ text }) =>
        unitState({ code: 0, text: text.split('\n').toSorted().join('\n') }) ===
        'active, loaded, success',
      show: unitState,
    },
  ]
}

/** The values of `systemctl show` without their names. */
const unitState = ({ text }: Answer): string =>
  text.replaceAll(/^\w+=/gm, '').replaceAll('\n', ', ')

/** Judges the answers; a guest that gave none has failed. */
export const judge = (checks: Check[], given: Record<string, Answer>): Result[] =>
  checks.map((check, index) => {
    const { name, expected, unavailable } = check
    if (unavailable !== undefined) return { check: name, state: 'n/a', found: unavailable }
    const answer = given[`p${index}`]
    if (!answer) return { check: name, state: 'fail', found: 'no answer', expected }
    const found = check.show?.(answer) ?? answer.text.split('\n')[0] ?? ''
    if (answer.code === 124) return { check: name, state: 'fail', found: 'took too long', expected }
    return { check: name, state: check.holds(answer) ? 'pass' : 'fail', found, expected }
  })

/** The commands to run, by the name under which `judge` looks for their answers. */
export const probesOf = (checks: Check[]): Record<string, string> =>
  Object.fromEntries(
    checks.flatMap(({ probe, unavailable }, index) =>
      probe === undefined || unavailable !== undefined ? [] : [[`p${index}`, probe]],
    ),
  )
