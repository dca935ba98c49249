/** The text of every boot entry on the ESP, by file name. */
type Entries = Record<string, string>

/** The toplevel that a boot entry starts. */
export const initOf = (text: string): string | undefined =>
  /^options .*\binit=(\S+)\/init\b/m.exec(text)?.[1]

/** The boot counter in an entry's file name: tries left, and tries made. */
const counter = /\+(\d+)(?:-\d+)?(?=\.conf$)/i

/** The id by which an entry is chosen: its file name without the counter. */
export const idOf = (name: string): string => name.toLowerCase().replace(counter, '')

/** Whether the boot loader treats an entry as bad: its tries are used up. */
export const isBad = (name: string): boolean => counter.exec(name)?.[1] === '0'

/** The generation number of an entry: from its text or its file name, depending on the NixOS release. */
export const numberOf = (name: string, text: string): number | undefined => {
  const found =
    /^version Generation (\d+)/m.exec(text) ?? /^nixos-generation-(\d+)/i.exec(name) ?? undefined
  return found && Number(found[1])
}

/** The profile that an entry belongs to; NixOS names it unless it is the system profile. */
export const profileOfEntry = (text: string): string =>
  /^title .*\[(.+)\]/m.exec(text)?.[1] ?? 'system'

/**
 * The entry that the boot loader chooses for an id or a pattern from loader.conf: the newest match, and a bad one only
 * if there is no other.
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
 * The entry that boots if no one-shot entry is set. `preferred` in loader.conf (systemd 260) overrides the default in
 * the EFI variable, unless that entry is bad.
 */
export function defaultOf(entries: Entries, conf: string, variable: string): string {
  const said = (key: string): string => new RegExp(`^${key}\\s+(\\S+)`, 'm').exec(conf)?.[1] ?? ''
  const preferred = said('preferred') && chosen(entries, said('preferred'))
  return preferred && !isBad(preferred) ? preferred : variable || said('default')
}
