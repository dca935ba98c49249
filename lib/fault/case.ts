import { agentJson } from '../scenario/agent-json.ts'
import { readHome, setLine, syncByUnit, type SyncStatus } from '../scenario/dotfile-sync.ts'
import { heal, inject, prove } from './lease.ts'
import type { Request } from './fault.ts'
import type { Scene } from '../scenario/family.ts'
import type { Machine } from '../scenario/machine.ts'
import { note, seen, upgrades } from '../scenario/upgrade.ts'

/** A fault as a case describes it: the VMs are the case's own, and it lasts as long as the case needs. */
export type Weather = Omit<Request, 'hosts' | 'lease'>

/** What is promised of an upgrade under a fault. */
export interface Under {
  name: string
  title: string
  fault: Weather
  /** How the upgrade, and the dotfile sync that it runs, must end during the fault. */
  upgrade: RegExp
  sync: RegExp
  hosts?: 1 | 2
}

const own = '.config/lab/one.conf'
const labrc = '.labrc'

/**
 * Pushes a config commit and a dotfile commit to the remotes and edits a dotfile in each VM. Then
 * injects the fault, upgrades, ends the fault, and checks that every VM catches up.
 */
export async function underFault(scene: Scene, { fault, upgrade, sync }: Under): Promise<void> {
  const { vm, vms, world, check } = scene
  const mine = fault.kind === 'partition' ? vms : [vm]
  const text = Object.assign({}, ...vms.map((each) => note(each, 'two'))) as ReturnType<typeof note>
  const commit = await world.config.commit(text, 'Two')
  const afar = (file: string): string => file.replace('one 12\n', 'one 12, from afar\n')
  await world.dotfiles.commit({ 'dot_config/lab/one.conf': afar }, 'From afar')
  for (const each of mine) await each.user(setLine(labrc, edited(each), `of ${each.host}`))

  // dotfiles are checked only where the subject promises that an upgrade syncs them
  const dotfiles = scene.subject.promises.has('dotfiles')
  const end = await begin(scene, mine, fault)
  for (const each of mine) {
    const { outcome, phase } = await upgrades(scene, each, { outcome: upgrade })
    if (dotfiles) check(`dotfiles of ${each.host} meanwhile`, sync, said(await lastSync(each)))
    // an upgrade may fail only because of what the remote answered, so only while fetching
    if (outcome === 'failed' && scene.subject.status)
      check(`${each.host} failed as it fetched`, 'fetch', phase)
    if (outcome !== 'upgraded') {
      check(`${each.host} is unchanged`, 'none', await seen(each))
      check(`the former system still runs`, scene.start(each), await each.running())
    }
  }
  await end()

  for (const each of vms) {
    const behind = !mine.includes(each) || (await seen(each)) !== 'two'
    if (behind) await upgrades(scene, each, { outcome: 'upgraded' })
    check(`${each.host} has what the commit brings`, 'two', await seen(each))
    if (scene.subject.status) {
      const { to } = (await each.status()) ?? {}
      check(`${each.host} caught up`, commit, to?.commit)
    }
    if (!dotfiles) continue
    const late = !/^(synced|up-to-date)$/.test(said(await lastSync(each)))
    if (late)
      check(`dotfiles of ${each.host} later`, 'synced', said((await syncByUnit(each)).status))
    check(`${each.host} has the edit from afar`, /^one 12, from afar$/m, await readHome(each, own))
  }
  if (!dotfiles) return
  const trunk = (await world.dotfiles.read('dot_labrc')) ?? ''
  for (const each of mine)
    check(
      `the trunk has the edit of ${each.host}`,
      `of ${each.host}`,
      trunk.split('\n')[edited(each) - 1],
    )
}

/** Injects a fault and proves it. @returns a function that heals it and proves that it is gone */
export async function begin(
  { fault: announce, patience }: Scene,
  vms: Machine[],
  weather: Weather,
): Promise<() => Promise<void>> {
  const hosts = vms.map(({ host }) => host)
  const announced = announce(`${weather.kind} on ${weather.link}`, hosts[0])
  const spend = <T>(work: () => Promise<T>): Promise<T> =>
    vms[0]!.spend('faults injected, measured, healed', work)
  const { holds, text } = await spend(async () =>
    prove(await inject({ ...weather, hosts, lease: 240 * patience })),
  )
  announced.bit(holds, text)
  return async () => {
    const lines = await spend(() => Promise.all(vms.map(({ vm }) => heal(vm, [weather.link]))))
    // one line for each link that had a fault; no line means that the fault was gone already
    announced.healed(
      lines.every((each) => each.length === 1),
      lines.flat().join('; '),
    )
  }
}

const edited = ({ vm }: Machine): number => (vm.slot % 2 === 0 ? 6 : 18)

async function lastSync(vm: Machine): Promise<SyncStatus> {
  const { stdout } = await vm.root('cat /var/lib/chezmoi-sync/status.json')
  return agentJson(stdout, `the status of the sync of ${vm.host}`)
}

const said = ({ outcome, reason }: SyncStatus): string =>
  reason && outcome !== 'offline' ? `${outcome}: ${reason}` : (outcome ?? 'nothing')
