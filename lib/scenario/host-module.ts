/** Where cases keep what they change of a flake. */
export const ownFiles = 'world'

/** Where a case puts what it changes of a host: a module of its own, empty at first. */
export const hostModule = (host: string): string => `${ownFiles}/hosts/${host}.nix`

/** A setting that takes what a case needs of a guest from the file that has it for this kind of guest. */
export const ofGuest = (name: string): string => `imports = [ (import ../guest.nix).${name} ];`

/** Where systemd looks for units first, and neither kind of guest keeps any of its own: what lies there stays over a switch. */
export const unitsByHand = '/etc/systemd/system.control'
