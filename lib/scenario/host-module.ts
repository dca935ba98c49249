/** Where a case puts what it changes of a host: a module of its own, empty at first. */
export const hostModule = (host: string): string => `world/hosts/${host}.nix`
