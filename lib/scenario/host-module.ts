/** Directory of a flake that holds the changes of cases. */
export const ownFiles = 'world'

/** The module in which a case changes a host; empty at first. */
export const hostModule = (host: string): string => `${ownFiles}/hosts/${host}.nix`

/** A setting that imports what a case needs from the file for this kind of guest. */
export const ofGuest = (name: string): string => `imports = [ (import ../guest.nix).${name} ];`

/** Where systemd looks for units first. Neither kind of guest manages it, so its files survive a switch. */
export const unitsByHand = '/etc/systemd/system.control'
