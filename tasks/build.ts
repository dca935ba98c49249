import { differences, type Difference } from '../lib/nix/expected.ts'
import { Exit, type ExitCode } from '../lib/failure.ts'
import { baseImage, type Ground } from '../lib/vm/ground.ts'
import { chooseGuest, guestStore } from '../lib/nix/guest.ts'
import { buildHosts, readHost, readImageBuilder, type Host } from '../lib/nix/host.ts'
import { chooseHosts } from '../lib/nix/hosts.ts'
import { closure, realise } from '../lib/nix/nix.ts'
import { requireTools } from '../lib/vm/preflight.ts'
import { runLanes, type Lane } from '../lib/steps.ts'
import { red, table } from '../lib/table.ts'
import { labFlake } from '../lib/settings.ts'
import { main, type Args } from '../lib/task.ts'
import { waysOf } from './deploy-vm.ts'

export const name = 'build'
export const describe =
  "Evaluate and build the hosts' configurations, and check them against the plan"
export const usage = '[host..]'
export const positionals = {
  host: { describe: 'Hosts of the flake; default: all', array: true },
}
export const options = {
  disko: {
    type: 'boolean',
    describe:
      'NixOS: use the disk layout of its disko, and build its image builder; not run by our tests',
  },
  json: { type: 'boolean', describe: 'Print data instead of a table' },
} as const
export const under = [
  'nix eval --json <flake>#labConfigurations.<host> --apply <nix/lab/facts.nix>   once per host',
  'nix-store --realise <toplevel>.drv',
  'nix path-info --json --recursive <toplevel>',
]
export const examples: [string, string][] = [
  ['just build-test-vms', 'Every host'],
  ['tsx tasks/build.ts sorrow --json', 'One, as data'],
]

const gib = 1024 ** 3

interface Building {
  host: string
  ground: Pick<Ground, 'store'>
  disko: boolean
  built?: Host
  seconds: number
  bytes: number
  paths: number
  differences: Difference[]
}

export async function run(args: Args): Promise<ExitCode> {
  requireTools(chooseGuest().kind)
  const disko = waysOf(args).disko ?? false
  const hosts = await chooseHosts(args['host'], chooseGuest().attribute)
  const ground = {} as Ground
  const buildings = hosts.map((host): Building => ({
    host,
    ground,
    disko,
    seconds: 0,
    bytes: 0,
    paths: 0,
    differences: [],
  }))
  const quiet = Boolean(args['json'])
  await runLanes([imageLane(ground, buildings, disko)], { quiet })
  await runLanes(buildings.map(lane), { quiet })
  const wrong = buildings.filter((one) => one.differences.length > 0)
  if (args['json']) {
    const data = buildings.map(({ host, seconds, bytes, paths, differences: wrongs, built }) => ({
      ...{ host, seconds, bytes, paths, differences: wrongs },
      ...built,
    }))
    console.log(JSON.stringify(data, null, 2))
  } else {
    const rows = buildings.map((one) => [
      one.host,
      `${one.seconds.toFixed(1)} s`,
      `${(one.bytes / 1e6).toFixed(1)} MB`,
      String(one.paths),
      one.built!.toplevel,
    ])
    console.log(table([['host', 'built in', 'closure', 'paths', 'toplevel'], ...rows]))
    for (const one of wrong) {
      for (const { fact, expected, found } of one.differences) {
        console.log(red(`${one.host}: ${fact} is ${found}, the plan expects ${expected}`))
      }
    }
  }
  return wrong.length > 0 ? Exit.checkFailed : Exit.held
}

const imageLane = (ground: Ground, buildings: Building[], disko: boolean): Lane<Ground> => ({
  title: 'lab',
  context: ground,
  steps: [
    {
      title: 'evaluate',
      would: () => ['evaluate every host'],
      run: async () => {
        const { attribute } = chooseGuest()
        const read = ({ host }: Building): Promise<Host> =>
          readHost(host, attribute, guestStore(), labFlake(), disko)
        await Promise.all(buildings.map(async (each) => void (each.built = await read(each))))
      },
    },
    {
      title: 'base image',
      would: () => ['build it, unless it is cached: it holds the kernel that a toplevel names'],
      run: async (_, say) => void Object.assign(ground, await baseImage(say)),
    },
  ],
})

const lane = (context: Building): Lane<Building> => ({
  title: context.host,
  context,
  steps: [
    {
      title: 'build',
      would: ({ host }) => [`build ${host}`],
      run: async (c, say) => {
        const from = performance.now()
        const { store } = c.ground
        // the embedded guest's derivations belong in its image's store, which may not have existed before
        if (!c.built || chooseGuest().kind === 'debian') {
          c.built = await readHost(c.host, chooseGuest().attribute, store, labFlake(), c.disko)
        }
        await buildHosts([c.built], store, say)
        if (c.disko) {
          const { derivation } = await readImageBuilder(c.host, { size: 20 * gib, emulated: false })
          await realise([derivation], store, { say, timeout: 4 * 3600 })
        }
        c.seconds = (performance.now() - from) / 1000
        const paths = await closure(c.built.toplevel, store)
        c.paths = paths.length
        c.bytes = paths.reduce((sum, { narSize }) => sum + narSize, 0)
        c.differences = differences(c.host, c.built.facts)
      },
    },
  ],
})

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
