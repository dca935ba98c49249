/** The choices in which a new host can differ from `hosts/sorrow`. */
export interface HostChoices {
  name: string
  user: string
  /** Names in `modules.services.cli` and `modules.services.networking`. */
  cli: string[]
  networking: string[]
  /** A systemd calendar expression. */
  schedule: string
  layout: string
  device: string
}

/** The choices of `hosts/sorrow`. */
export const usual = {
  user: 'rain',
  cli: ['atuin'],
  networking: ['openssh', 'ssh', 'syncthing', 'tailscale'],
  schedule: 'hourly',
  layout: 'btrfs',
  device: '/dev/vda',
}
