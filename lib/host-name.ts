import { oneLine, usage } from './failure.ts'

/** A DNS label that begins with a letter: what NixOS accepts as `networking.hostName`, in lower case. */
const rule = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * Returns the name if it is a valid host name. It goes into paths, Nix code and command lines, so
 * this check must let nothing else through.
 * @throws Failure (usage)
 */
export function hostName(name: string): string {
  if (rule.test(name)) return name
  const shown = name.length > 80 ? `${name.slice(0, 80)}…` : name
  throw usage(
    `Cannot use \`${oneLine(shown)}\` as a host name`,
    'Write 1 to 63 of a-z, 0-9 and hyphen, beginning with a letter and not ending with a hyphen',
  )
}
