import { faultHelp, faultOptions, runFault, verbs } from '../lib/fault-command.ts'
import { scenario, type Family } from '../lib/scenario.ts'
import { main, type Args, type Task } from '../lib/task.ts'
import { usage as usageFailure, type ExitCode } from '../lib/failure.ts'

export const family: Family = {
  name: 'chaos-network',
  describe: 'Fault a network for a while, or see upgrade and dotfile sync live through every fault',
  cases: [],
}

const scenarios = scenario(family)

export const task: Task = {
  ...scenarios,
  usage: '[what..]',
  positionals: {
    what: {
      describe: 'A fault to inject, `heal` or `list`; else VMs to run the scenarios on',
      array: true,
    },
  },
  options: { ...faultOptions, ...scenarios.options },
  under: [
    ...faultHelp,
    '',
    'tc qdisc add dev uplink root netem …   in the guest, under a unit that takes it away',
    'QMP set_link uplink-nic   cut and flap, by the keeper',
    'ping, getent, TCP connect   measure before, under and after it',
    ...scenarios.under,
  ],
  examples: [
    ['tsx tasks/chaos-network.ts delay --link uplink --vm sorrow --ms 100', 'A fault for 60 s'],
    ['tsx tasks/chaos-network.ts heal', 'Heal every link, recorded or not'],
    ...scenarios.examples,
  ],
  run: async (args: Args): Promise<ExitCode | void> => {
    const [verb, ...rest] = (args['what'] ?? []) as string[]
    if (verb === undefined || !verbs.includes(verb)) {
      const foreign = Object.keys(faultOptions).find((option) => args[option] !== undefined)
      if (foreign) throw usageFailure(`Cannot use --${foreign} without a fault`, verbs.join(', '))
      return await scenarios.run({ ...args, host: args['what'] })
    }
    if (rest.length > 0)
      throw usageFailure(`Cannot read \`${rest.join(' ')}\` after ${verb}`, '--vm')
    return await runFault(verb, args)
  },
}

await main(import.meta, task)
