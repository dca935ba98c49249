import { upgradeKindsInWords } from '../lab-settings.ts'

/** Flags shared by the tasks that run cases. */
export const flags = {
  host: {
    type: 'string',
    array: true,
    describe: 'VMs to use, two at most; the first of the flake without any',
  },
  case: { type: 'string', array: true, describe: 'Cases, as <case> or <family>/<case>' },
  shard: {
    type: 'string',
    describe: 'Part to run, as 2/4; by recorded times, so that parts end together',
  },
  durations: { type: 'string', describe: 'Seconds by case for --shard, as merge-runs writes them' },
  jobs: { type: 'string', describe: 'Labs side by side, copies of the VMs: a number, or auto' },
  list: { type: 'boolean', describe: 'List the cases and run none' },
  seed: { type: 'number', describe: 'Seed of what is random' },
  subject: { type: 'string', describe: `What to judge: ${upgradeKindsInWords}` },
  keep: { type: 'boolean', describe: 'Leave the VMs as the last case left them' },
  pause: { type: 'boolean', describe: 'Stop at each case that fails, until Enter' },
  json: { type: 'boolean', describe: 'Print data on standard output' },
} as const
