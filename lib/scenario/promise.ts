/** What a GitOps setup may promise. Each case is about one of them; a subject says which ones it makes. */
export const promises = {
  deploy: 'a good commit is deployed',
  refuse: 'a commit that cannot be built changes nothing',
  offline: 'an unreachable remote changes nothing, and the next run catches up',
  patience: 'a remote that never answers is given up after a while',
  whole: 'an upgrade cut short leaves the old system or the new one, and the next run ends it',
  rollback: 'what fails after the switch is rolled back',
  reach: 'a commit that shuts out SSH is rolled back',
  checks: "the host's own checks decide whether a commit stays",
  fallback: 'a generation that does not boot gives way to the one before it',
  reboot: 'a reboot that is due happens by itself, in the hours allowed for it',
  lock: 'another upgrade or switch that is running is left alone',
  history: 'a branch that was rewritten is refused',
  memory: 'a commit that failed once is not tried again',
  space: 'a full disk is noticed before anything is changed',
  local: 'commits and edits made on the host stay, and are deployed with the rest',
  dotfiles: 'dotfiles are synced first, even if the commit then fails',
  edits: 'no edit of a dotfile is lost, on however many hosts it is made',
  tidy: 'old generations are deleted, and the ones in use stay',
} as const

export type Promised = keyof typeof promises

export const allPromises = Object.keys(promises) as Promised[]
