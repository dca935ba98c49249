import { Failure } from '../failure.ts'
import { fromHome, type LabSettings } from '../lab-settings.ts'
import type { Machine } from './machine.ts'
import { defaultOf } from './boot-entries.ts'
import { asRoot, asUser } from './oracle-questions.ts'
import { readStatusLog, type Seen } from './status-log.ts'

/** The state of a VM, read over SSH as root and as its user, and through the guest agent. */
export interface Facts {
  bootId: string
  /** As the guest agent reads it; undefined when it does not answer. */
  agentBootId: string | undefined
  running: string
  booted: string
  profile: string
  /** What golden's gcroot points at. */
  gcroot: string
  /** Entry that boots unless a one-shot entry is set, or a pattern for it: from loader.conf or an EFI variable. */
  defaultEntry: string
  /** One-shot entry: boots next, once. */
  oneShot: string | undefined
  /** Text by file name, of every entry on the ESP. */
  entries: Record<string, string>
  golden: GoldenRecord | undefined
  /** `<toplevel> <time> <reason>` lines. */
  failedTrials: string[]
  /** `linux` and `initrd` of golden's entry: `same` as the store's, or `differs`. */
  goldenFiles: Record<string, string>
  /** What `nix-store --verify` complained of; empty when nothing. */
  store: string
  /** Number of valid store paths added since the baseline, and those whose contents are not as registered. */
  newPaths: number
  spoiltPaths: string[]
  /** ActiveState by unit. */
  units: Record<string, string>
  failedUnits: string[]
  /** The last successful upgrade. */
  deployed: { commit: string; toplevel: string } | undefined
  /** Text of the upgrade's transaction file, where there is one. */
  transaction: string | undefined
  /** Toplevel by number, of each generation of the profile that the subject deploys to. */
  generations: Record<number, string>
  /** Toplevels of their specialisations, which have boot entries of their own. */
  specialisations: string[]
  /** Toplevels of the generations of other profiles, which have entries too. */
  beside: string[]
  /** `system`, or the name that the entries of another profile show in brackets. */
  profileName: string
  /** The generation that the profile points at. */
  current: number
  /** How many generations the boot menu has at most, 0 for all; undefined where the guest does not say. */
  menuLimit: number | undefined
  loaderConf: string
  /** Every file of the ESP that an agent or an installer writes, by its path below /boot. */
  bootFiles: string[]
  /** Script that the firmware's shell runs when nothing boots. */
  startupScript: string
  /** Lock files of the agents that a user other than root could lock. */
  openLocks: string[]
  trial: TrialRecord | undefined
  /** Lines of this boot's journal about ordering cycles, kernel oopses and unit restarts. */
  journal: string[]
  /** States of the agents' status files that the watcher saw. */
  seen: Seen[]
  /** Current contents of these files. */
  states: string[]
  /** Facts that could not be read, each with the exit status of its command: no other field here covers them. */
  unread: string[]
  /** Files in the home and the clones of the primary user that another user owns. */
  foreign: string[]
  repositories: Record<string, Repository>
}

export interface GoldenRecord {
  toplevel: string
  entry: string
}

export interface TrialRecord {
  toplevel: string
  entry: string
  state: string
  /** Id of the boot in which it was put on trial. */
  boot: string
}

/** A colocated jj repository. */
export interface Repository {
  /** Every commit that jj ever made or fetched here, by its id. */
  commits: Record<string, CommitFacts>
  /** Ids of the changes that are visible now. */
  visible: string[]
  /** Ids of their current commits. */
  shown: string[]
  /** Lines that each commit adds and removes, by its id; only commits that are on no branch of the remote. */
  patches: Record<string, string>
  /** Merges with content of their own, which git's automatic merge of their parents does not have. */
  settling: string[]
  /** Heads of the remote's branches at the last fetch. */
  heads: string[]
}

export interface CommitFacts {
  /** jj's id of the change; a commit that git made has none. */
  change: string | undefined
  tree: string
  parents: string[]
  /** Author, author time and message, which a copy of a commit shares with it. */
  origin: string
}

/** Paths of the primary user's clones, relative to the home or absolute. */
export const clonesOf = ({ flake, dotfiles }: LabSettings['paths']): string[] =>
  [flake, dotfiles].map(fromHome)

/** Seconds that a VM has to answer all questions. */
export const factsWithin = ({ patience }: Machine): number => 120 + 60 * patience

/**
 * Asks a VM for all facts that the oracle judges.
 * @throws Failure when it does not answer on SSH
 */
export async function askFacts(vm: Machine, units: string[], clones: string[]): Promise<Facts> {
  const limit = factsWithin(vm)
  const [root, user, agent] = await Promise.all([
    vm.root('exec bash -s', {
      input: asRoot(units, vm.vm.user, clones, vm.subject),
      timeout: limit,
      allow: 'any',
    }),
    vm.user('exec bash -s', { input: asUser(clones), timeout: limit, allow: 'any' }),
    vm.agent('cat /proc/sys/kernel/random/boot_id').catch(() => undefined),
  ])
  return readFacts(root.stdout, user.stdout, agent?.stdout)
}

/** @throws Failure when an answer was cut short, as by a reboot */
export function readFacts(root: string, user: string, agent: string | undefined): Facts {
  const said = { ...sections(root), ...sections(user) }
  const lines = (name: string): string[] => (said[name] ?? '').split('\n').filter(Boolean)
  if (!root.trimEnd().endsWith('\u001eend') || !user.trimEnd().endsWith('\u001eend')) {
    throw new Failure('Cannot ask the VM for its state: its answer was cut short', {
      evidence: (root + user).slice(-500),
    })
  }
  const [running = '', booted = '', profile = '', gcroot = ''] = lines('links')
  const named = (prefix: string): [string, string][] =>
    Object.entries(said).flatMap(([name, text]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), text]] : [],
    )
  const at = (clone: string): string[][] =>
    lines(`visible ${clone}`).flatMap((line) =>
      /^[k-z]+ [0-9a-f]{40}$/.test(line) ? [line.split(' ')] : [],
    )
  const entries = Object.fromEntries(named('entry '))
  const [profileName = '', link = ''] = (said['current'] ?? '').trim().split(' ')
  const [count = '0', ...spoilt] = lines('newPaths')
  const [deployed = '', , ofIt = ''] = (said['deployed'] ?? '').trim().split(' ')
  return {
    bootId: said['bootId']?.trim() ?? '',
    agentBootId: agent?.trim(),
    running,
    booted,
    profile,
    gcroot,
    defaultEntry: defaultOf(entries, said['loaderConf'] ?? '', said['efiDefault']?.trim() ?? ''),
    oneShot: said['efiOneShot']?.trim() || undefined,
    entries,
    golden: readRecord(said['golden']) as GoldenRecord | undefined,
    failedTrials: lines('failedTrials'),
    goldenFiles: pairs(lines('goldenFiles'), ' '),
    store: lines('store')
      .filter((line) => !/^(reading|checking|finding|\s*$)/.test(line))
      .join('\n'),
    newPaths: Number(count),
    spoiltPaths: spoilt.filter((line) => !line.startsWith('checking path')),
    units: Object.fromEntries(
      (said['units'] ?? '').split('\n\n').map((block) => {
        const values = pairs(block.trim().split('\n'), '=')
        return [values['Id'] ?? '', values['ActiveState'] ?? '']
      }),
    ),
    failedUnits: lines('failedUnits').map((line) => line.split(' ')[0]!),
    deployed: deployed ? { commit: deployed, toplevel: ofIt } : undefined,
    // a file that exists and is empty prints an empty line
    transaction: said['transaction'] ? said['transaction'].trim() || 'an empty file' : undefined,
    generations: readGenerations(lines('generations')),
    specialisations: lines('specialisations'),
    beside: lines('beside'),
    profileName,
    current: Number(/-(\d+)-link$/.exec(link)?.[1]),
    menuLimit: said['menuLimit']?.trim() ? Number(said['menuLimit']) : undefined,
    loaderConf: said['loaderConf'] ?? '',
    bootFiles: lines('bootFiles'),
    startupScript: said['startupScript']?.trim() ?? '',
    openLocks: lines('openLocks'),
    trial: readRecord(said['trial']) as TrialRecord | undefined,
    journal: lines('journal'),
    seen: readStatusLog(said['status'] ?? ''),
    states: lines('states'),
    unread: [
      ...named('unread ').map(([name, text]) => `${name}: ${text.trim()}`),
      // files that the agents would still read as records
      ...['golden', 'trial'].flatMap((name) =>
        said[name] && readRecord(said[name]) === undefined ? [`${name}: it holds no JSON`] : [],
      ),
    ],
    foreign: lines('foreign'),
    repositories: Object.fromEntries(
      named('commits ').map(([name, text]) => [
        name,
        {
          commits: readCommits(text),
          // lines of any other form are messages of jj, not changes
          ...{ visible: at(name).map(([change]) => change!), shown: at(name).map(([, id]) => id!) },
          patches: readPatches(said[`patches ${name}`] ?? ''),
          settling: readSettling(said[`settling ${name}`] ?? ''),
          heads: lines(`heads ${name}`),
        },
      ]),
    ),
  }
}

function sections(text: string): Record<string, string> {
  const parts = text.split('\u001e').slice(1)
  return Object.fromEntries(
    parts.map((part) => {
      const end = part.indexOf('\n')
      return [part.slice(0, end < 0 ? undefined : end), end < 0 ? '' : part.slice(end + 1)]
    }),
  )
}

const pairs = (lines: string[], between: string): Record<string, string> =>
  Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf(between)
      return at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1)]
    }),
  )

/** Undefined for a file that was cut short, as by a power cut. */
function readRecord(text = ''): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** @param lines the names of all links, then their targets */
const readGenerations = (lines: string[]): Facts['generations'] =>
  Object.fromEntries(
    lines
      .slice(0, lines.length / 2)
      .map((name, index) => [
        Number(/-(\d+)-link$/.exec(name)?.[1]),
        lines[lines.length / 2 + index]!,
      ]),
  )

/** The lines that each commit adds and removes and the names of their files, without line numbers. */
function readPatches(text: string): Repository['patches'] {
  const parts = text.split('\u001d').slice(1)
  return Object.fromEntries(
    parts.map((part) => {
      const [id = '', ...lines] = part.split('\n')
      const changed = lines.filter((line) => /^([+-]|Binary files)/.test(line))
      return [id, changed.join('\n')]
    }),
  )
}

/** Merges in which files differ from git's automatic merge, but not those in which jj has stored a conflict. */
function readSettling(text: string): string[] {
  const parts = text.split('\u001d').slice(1)
  return parts.flatMap((part) => {
    const [id = '', ...names] = part.split('\n').filter(Boolean)
    return names.length === 0 || names.includes('JJ-CONFLICT-README') ? [] : [id]
  })
}

/** Reads the raw commits of `git cat-file --batch`; jj stores its change id in an extra header. */
function readCommits(text: string): Repository['commits'] {
  const parts = text.split('\u001d').slice(1)
  return Object.fromEntries(
    parts.map((part) => {
      const end = part.indexOf('\n')
      const id = part.slice(0, 40)
      const [header = '', ...message] = part.slice(end + 1).split('\n\n')
      const author = /^author (.+)$/m.exec(header)?.[1] ?? ''
      return [
        id,
        {
          change: /^change-id (\w+)$/m.exec(header)?.[1],
          tree: /^tree (\w+)$/m.exec(header)?.[1] ?? '',
          parents: [...header.matchAll(/^parent (\w+)$/gm)].map(([, parent]) => parent!),
          origin: `${author}\n${message.join('\n\n').trim()}`,
        },
      ]
    }),
  )
}
