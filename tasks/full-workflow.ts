import { lineOf, readHome, setLine } from '../lib/scenario/dotfile-sync.ts'
import { scenarioTask, type Family, type Machine, type Scene } from '../lib/scenario/scenario.ts'
import { deployedBy, note, seen } from '../lib/scenario/upgrade.ts'

export const family: Family = {
  name: 'full-workflow',
  describe: 'Bring one dotfile edit and one commit all the way to a golden generation on both VMs',
  cases: [
    {
      name: 'workflow',
      title:
        'dotfile edit, config change, pull, build, switch, validate, reboot; golden moves on both',
      promise: 'deploy',
      own: true,
      needs: ['golden', 'sync'],
      hosts: 2,
      limit: 400,
      ends: 'main',
      run: workflow,
    },
  ],
}

const dotfile = '.labrc'
const golden = 'readlink -f /nix/var/nix/gcroots/golden-generation'

async function workflow(scene: Scene): Promise<void> {
  const { vm, other, vms, world, check } = scene
  await vm.user(setLine(dotfile, 5, `of ${vm.host}`))
  const changes = Object.assign({}, ...vms.map((each) => note(each, 'whole')))
  const commit = await world.config.commit(changes, 'Whole')

  // in sequence, so that the second host fetches what the first has pushed
  const toplevels = new Map<Machine, string>()
  for (const each of [vm, other]) toplevels.set(each, await upgraded(scene, each, commit))
  for (const each of vms) {
    const text = lineOf(await readHome(each, dotfile), 5)
    check(`${each.host} has the dotfile edit`, `of ${vm.host}`, text)
    check(`${each.host} has the change of the commit`, 'whole', await seen(each))
    check(`${each.host} runs the deployed system`, toplevels.get(each)!, await each.running())
    const before = await each.ask(golden)
    check(`golden of ${each.host} has not moved before a boot`, scene.start(each), before)
  }

  await Promise.all(
    vms.map(async (each) => {
      const toplevel = toplevels.get(each)
      const booted = `[ "$(readlink -f /run/booted-system)" = ${toplevel} ]`
      const seconds = await each.reboot({ limit: 120, until: booted })
      scene.event(`${each.host} booted the new generation`, { host: each.host, seconds })
      const moved = await each.until(
        'golden to move',
        90,
        `[ "$(${golden})" = ${toplevel} ] && show-golden`,
      )
      check(`golden of ${each.host} has moved`, /^golden: (?!.*PROBLEM)/s, moved)
    }),
  )
}

/** Upgrades a host and checks the steps in its log. @returns the store path that it deployed */
async function upgraded(scene: Scene, vm: Machine, commit: string): Promise<string> {
  const { status, log } = await vm.upgrade({ limit: 120 })
  scene.must(
    `the outcome of the upgrade of ${vm.host}`,
    'upgraded',
    status?.outcome ?? status?.reason,
  )
  scene.check(`${vm.host} deployed the commit`, commit, status?.to?.commit)
  const phases = [...log.matchAll(/phase: (\w+)/g)].map(([, phase]) => phase)
  scene.check(
    `${vm.host} took the steps in order`,
    /\bdotfiles fetch rebase build preflight switch validate\b/,
    phases.join(' '),
  )
  const failed = status?.checks.filter(({ result }) => result === 'failed') ?? []
  scene.check(`no check of ${vm.host} failed`, '', failed.map((one) => one.command).join('; '))
  return deployedBy(scene, status).toplevel
}

await scenarioTask(import.meta, family)
