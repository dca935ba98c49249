/** What a GitOps setup may promise. Each case is about one of them; a subject says which ones it makes. */
export const promises = {
  deploy: 'a good commit is deployed',
  refuse: 'a commit that cannot be built changes nothing',
  offline: 'a remote out of reach changes nothing, and the next run catches up',
  patience: 'a remote that never answers is given up after a while',
  whole: 'an upgrade cut short leaves the old system or the new one, and the next run ends it',
  rollback: 'what fails after the switch is taken back',
  reach: 'a commit that shuts out SSH is taken back',
  checks: 'checks of its own decide whether a commit stays',
  fallback: 'a generation that does not boot gives way to the one before it',
  reboot: 'a reboot that is due comes by itself, in the hours for it',
  lock: 'another upgrade or switch at work is left alone',
  history: 'a branch that was rewritten is refused',
  memory: 'what was bad once is not tried again',
  space: 'a disk without room is seen before anything is changed',
  local: 'commits and edits made on the host stay, and are deployed with the rest',
  dotfiles: 'dotfiles come in step first, whatever becomes of the commit',
  edits: 'no edit of a dotfile is lost, on however many hosts it is made',
  tidy: 'old generations are taken away, and the ones in use stay',
} as const

export type Promised = keyof typeof promises

export const allPromises = Object.keys(promises) as Promised[]
