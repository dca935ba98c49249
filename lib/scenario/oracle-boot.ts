import { mayFail } from '../lab-settings.ts'
import type { OracleRow } from '../report/result.ts'
import type { Facts } from './oracle-facts.ts'
import { chosen, idOf, initOf, isBad, numberOf, profileOfEntry } from './boot-entries.ts'
import { rejected } from './status-log.ts'

/** A row that holds when nothing is wrong. */
export const nothingWrong = (name: string, expected: string, wrong: string[]): OracleRow => ({
  name,
  state: wrong.length === 0 ? 'ok' : 'failed',
  expected,
  found: wrong.length === 0 ? expected : wrong.join('; '),
})

/** What must hold of generations, boot menu, trial and ESP, whatever a case did. */
export const judgeBoot = (facts: Facts, excused: string[]): OracleRow[] => [
  nothingWrong('generations', 'as the boot menu has them', differences(facts)),
  nothingWrong('rejected generations', 'in neither profile nor menu', rejectedOnes(facts)),
  nothingWrong('boot counters', 'tries are left of what is good', counters(facts)),
  nothingWrong('trial', 'record, boot loader and profile agree', trial(facts)),
  nothingWrong('ESP', 'nothing left over', leftOver(facts)),
  nothingWrong('locks', 'closed to others', facts.openLocks),
  nothingWrong('journal of this boot', 'no cycle, oops or restart loop', journal(facts, excused)),
]

interface Installed {
  name: string
  profile: string
  number?: number
  toplevel?: string
}

/** Entries that an installer made for a generation. */
const installed = ({ entries }: Facts): Installed[] =>
  Object.entries(entries)
    .filter(([name]) => /^nixos-/i.test(name))
    .map(([name, text]) => ({
      ...{
        name,
        profile: profileOfEntry(text),
        number: numberOf(name, text),
        toplevel: initOf(text),
      },
    }))

function differences(facts: Facts): string[] {
  const { current, menuLimit } = facts
  const all = new Map(Object.entries(facts.generations).map(([key, value]) => [Number(key), value]))
  const own = ({ profile }: Installed): boolean => profile === facts.profileName
  const menu = installed(facts).filter(own)
  const known = [...all.values(), ...facts.specialisations]
  const wrong = menu.flatMap(({ number, name, toplevel = '' }) => {
    if (facts.specialisations.includes(toplevel)) return []
    if (number === undefined) return known.includes(toplevel) ? [] : [`${name} is of no generation`]
    const there = all.get(number)
    if (there === undefined) return [`${name} is of no generation`]
    return there === toplevel
      ? []
      : [`${name} boots ${toplevel}, and generation ${number} is ${there}`]
  })
  for (const entry of installed(facts)) {
    const there = own(entry) || facts.beside.includes(entry.toplevel ?? '')
    if (!there) wrong.push(`${entry.name} is of no generation`)
  }
  if (!all.has(current)) wrong.push('the profile points at no generation')
  // a limited menu has the newest generations, and the one that the profile points at
  const sorted = [...all.keys()].toSorted((a, b) => b - a)
  const shown = menuLimit === undefined ? [] : sorted.slice(0, menuLimit || sorted.length)
  for (const number of new Set([current, ...shown])) {
    const has = (entry: Installed): boolean =>
      entry.number === number || (entry.number === undefined && entry.toplevel === all.get(number))
    if (all.has(number) && !menu.some(has)) {
      wrong.push(`generation ${number} has no entry`)
    }
  }
  return [...wrong, ...ownDefault(facts)]
}

/**
 * The default of loader.conf must boot the profile: it counts once the firmware has lost its variables or golden is
 * unpinned. A default that is a pattern is not judged.
 */
function ownDefault({ entries, loaderConf, generations, current }: Facts): string[] {
  const said = /^default\s+([^\s*@]+)$/m.exec(loaderConf)?.[1]
  const boots = said && initOf(entries[chosen(entries, said) ?? ''] ?? '')
  if (!boots || boots === generations[current]) return []
  return [`${said}, the default of loader.conf, boots ${boots}, which is not the profile`]
}

function rejectedOnes(facts: Facts): string[] {
  const bad = new Set(rejected(facts.seen))
  const links = Object.entries(facts.generations).filter(([, toplevel]) => bad.has(toplevel))
  const entries = installed(facts).filter(({ toplevel }) => toplevel && bad.has(toplevel))
  return [
    ...links.map(([number, toplevel]) => `generation ${number} is ${toplevel}`),
    ...entries.map(({ name, toplevel }) => `${name} boots ${toplevel}`),
  ]
}

/** The running, the golden and the trial generation have tries left, where the boot loader counts them. */
function counters(facts: Facts): string[] {
  const good = [facts.running, facts.golden?.toplevel, facts.trial?.toplevel]
  return installed(facts)
    .filter(({ name, toplevel }) => isBad(name) && good.includes(toplevel))
    .map(({ name, toplevel }) => `${name} boots ${toplevel}`)
}

function trial({ trial: record, bootId, oneShot, profile, golden }: Facts): string[] {
  if (!record) {
    return [
      ...(oneShot ? [`the boot loader tries ${oneShot} once, and nothing is on trial`] : []),
      ...(golden && profile !== golden.toplevel
        ? [`${profile} is the profile, neither golden nor on trial`]
        : []),
    ]
  }
  const { toplevel, entry, state, boot } = record
  return [
    ...(state === 'armed' ? [] : [`it is ${state}`]),
    ...(boot === bootId ? [] : ['it is of an earlier boot, and was not judged']),
    ...(toplevel === profile ? [] : [`${toplevel} is on trial, and ${profile} the profile`]),
    ...(idOf(entry) === idOf(oneShot ?? '')
      ? []
      : [`${entry} is on trial, and ${oneShot ?? 'nothing'} boots once`]),
  ]
}

function leftOver(facts: Facts): string[] {
  const { bootFiles, entries, golden, loaderConf, startupScript } = facts
  const ofGolden = Object.keys(entries).filter((name) => name.startsWith('golden-'))
  const loads = (names: string[]): string => names.map((name) => entries[name]).join('\n')
  const named = {
    'EFI/golden/': loads(golden ? [golden.entry] : []),
    'EFI/nixos/': loads(Object.keys(entries).filter((name) => !ofGolden.includes(name))),
  }
  const orphans = bootFiles.filter((file) =>
    Object.entries(named).some(
      ([dir, text]) => file.startsWith(dir) && !text.split(/\s+/).includes(`/${file}`),
    ),
  )
  return [
    ...bootFiles.filter((file) => file.endsWith('.new')),
    ...orphans
      .filter((file) => !file.endsWith('.new'))
      .map((file) => `${file}, which no entry names`),
    ...ofGolden.filter((name) => name !== golden?.entry).map((name) => `${name}, golden no more`),
    ...[/^preferred\s+(\S+)/m.exec(loaderConf)?.[1] ?? '']
      .filter((id) => id && chosen(entries, id) === undefined)
      .map((id) => `loader.conf prefers ${id}, which is no entry`),
    ...(!facts.trial && /^reboot-on-error/m.test(loaderConf)
      ? ['loader.conf has reboot-on-error, and nothing is on trial']
      : []),
    // golden would be tried again and again; before anything is golden, the script is the image's own
    ...(golden && !facts.trial && startupScript === 'reset -c'
      ? ['startup.nsh resets, and nothing is on trial']
      : []),
  ]
}

function journal({ journal: lines }: Facts, excused: string[]): string[] {
  return lines.flatMap((line) => {
    const restart = /^(\S+): Scheduled restart job, restart counter is at (\d+)/.exec(line)
    if (!restart) return [line]
    const [, unit = '', count] = restart
    // cases name the units that they make fail lab-…; any other unit may start too early once or twice
    return unit.startsWith('lab-') || mayFail(unit, excused) || Number(count) !== 3
      ? []
      : [`${unit} restarts again and again`]
  })
}
