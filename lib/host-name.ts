import { oneLine, usage } from './failure.ts'

/** What NixOS accepts as `networking.hostName`; nixpkgs, nixos/modules/tasks/network-interfaces.nix. */
const accepted = /^[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?$/

/** The same, in lower case and beginning with a letter: valid in a URL, in mail and unquoted in Nix code, too. */
const portable = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * Returns the name if a flake's host may have it. It goes into paths, Nix code and command lines, so
 * this check must let nothing else through.
 * @throws Failure (usage)
 */
export const hostName = (name: string): string =>
  checked(
    name,
    accepted,
    'Write 1 to 63 of a-z, A-Z, 0-9, hyphen and underscore, with none of the last two at an end',
  )

/** Returns the name if a new host may have it. @throws Failure (usage) */
export const newHostName = (name: string): string =>
  checked(
    name,
    portable,
    'Write 1 to 63 of a-z, 0-9 and hyphen, beginning with a letter and not ending with a hyphen',
  )

function checked(name: string, rule: RegExp, hint: string): string {
  if (rule.test(name)) return name
  const shown = name.length > 80 ? `${name.slice(0, 80)}…` : name
  throw usage(`Cannot use \`${oneLine(shown)}\` as a host name`, hint)
}
