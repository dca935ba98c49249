/** Text by file name, of every entry on the ESP. */
type Entries = Record<string, string>

/** The toplevel that an entry boots. */
export const initOf = (text: string): string | undefined =>
  /^options .*\binit=(\S+)\/init\b/m.exec(text)?.[1]

/** What counts boots in an entry's name: the tries that are left, and those that were made. */
const counter = /\+(\d+)(?:-\d+)?(?=\.conf$)/i

/** By what an entry is chosen: its name without a counter. */
export const idOf = (name: string): string => name.toLowerCase().replace(counter, '')

/** Whether the boot loader takes an entry for bad: its tries are used up. */
export const isBad = (name: string): boolean => counter.exec(name)?.[1] === '0'

/** The generation that an entry says it is of: in its text, or by its name, as each release of NixOS has it. */
export const numberOf = (name: string, text: string): number | undefined => {
  const found =
    /^version Generation (\d+)/m.exec(text) ?? /^nixos-generation-(\d+)/i.exec(name) ?? undefined
  return found && Number(found[1])
}

/** The profile that an entry says it is of; NixOS names only those beside the system's. */
export const profileOfEntry = (text: string): string =>
  /^title .*\[(.+)\]/m.exec(text)?.[1] ?? 'system'

/**
 * The entry that the boot loader takes for an id or a pattern, as loader.conf has them: of several the newest one,
 * and a bad one only where there is no other.
 */
export function chosen(entries: Entries, pattern: string): string | undefined {
  const parts = idOf(pattern).split('*')
  const matches = new RegExp(`^${parts.map((part) => part.replace(/[^\w-]/g, '\\$&')).join('.*')}$`)
  const age = (name: string): number => numberOf(name, entries[name]!) ?? 0
  return Object.keys(entries)
    .filter((name) => matches.test(idOf(name)))
    .toSorted((a, b) => Number(isBad(a)) - Number(isBad(b)) || age(b) - age(a))[0]
}

/**
 * The entry that boots where none is set for once. What loader.conf prefers (systemd 260) comes before the default
 * of an EFI variable, unless it is bad.
 */
export function defaultOf(entries: Entries, conf: string, variable: string): string {
  const said = (key: string): string => new RegExp(`^${key}\\s+(\\S+)`, 'm').exec(conf)?.[1] ?? ''
  const preferred = said('preferred') && chosen(entries, said('preferred'))
  return preferred && !isBad(preferred) ? preferred : variable || said('default')
}
