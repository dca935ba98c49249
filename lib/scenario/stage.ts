import { join } from 'node:path'
import { explain, onFailure, usage, type Failure } from '../failure.ts'
import { endFaults } from '../fault/lease.ts'
import { whenCutShort } from '../interrupt.ts'
import type { Lock } from '../lock.ts'
import { chooseGuest } from '../nix/guest.ts'
import { chooseHosts } from '../nix/hosts.ts'
import { labSources, writePlan, type Plan } from '../report/plan.ts'
import { carriedOn } from '../report/cut-short.ts'
import type { Part } from '../report/merge.ts'
import { holdRecord, openRecord, pruneRuns, reopenRecord } from '../report/record.ts'
import type { Run } from '../report/report.ts'
import { writeReports, writeResults } from '../report/reports.ts'
import { complete, type CaseResult, type Ran } from '../report/result.ts'
import { shardName, type Shard } from '../report/shard.ts'
import { labHome } from '../settings.ts'
import { runLanes, type Lane, type Step } from '../steps.ts'
import { baseImage, preflight, type Ground } from '../vm/ground.ts'
import { removeAbandoned, removeCopy, removedInWords, type HeldCopy } from '../vm/copies.ts'
import { requireSpace } from '../vm/preflight.ts'
import { isRunning, readVm } from '../vm/vm.ts'
import { ensureBaseline, hasBaseline, holdVm, type Hold } from './baseline.ts'
import { pauses } from './pause.ts'
import { leaveAsBefore } from './before.ts'
import type { Stage, Watch } from './family.ts'
import { ownFiles } from './host-module.ts'
import { jobsFor, load, roomHere, type Jobs } from './jobs.ts'
import { openLabs, type Lab } from './labs.ts'
import type { Changes } from './remote.ts'
import { allPromises } from './promise.ts'
import type { Subject } from './subject.ts'
import { theSubject } from './subjects.ts'
import { closeWorlds, openWorld, template } from './world.ts'

export interface RunOptions {
  /** Name of the record. */
  name: string
  /** At most two. */
  hosts?: string[]
  cases?: string[]
  seed?: number
  keep?: boolean
  /** Stops at each case that fails. */
  pause?: boolean
  /** Number of labs that share the cases. Default 1: only the VMs themselves, each with cases of its own. */
  jobs?: Jobs
  list?: boolean
  json?: boolean
  /** Runs only this part of the cases. */
  shard?: Shard
  /** File with the seconds of each case, by which the parts take about the same time. */
  durations?: string
  /** Kind of the subject, in place of the one that `lab.toml` or the hosts say. */
  subject?: string
  /** Judges the subject by every promise, also by those that it does not make. */
  every?: boolean
  /** An interrupted run to carry on: its record, and what it was asked for. */
  resume?: Part
  /** How to go on when this run is interrupted; by default it starts over. */
  goOn?: string
  /** Files on top of the flake, by path. */
  extra?: Changes
  watch?: Watch
}

/** Files that a subject adds for each host. */
const broughtBy = ({ module }: Subject): Changes =>
  module === undefined ? {} : { [`${ownFiles}/subject.nix`]: module }

/** What a flake needs for the scenarios of our agents. */
export const toHaveThem =
  'import nixosModules.{autoUpgrade,goldenGeneration,chezmoiSync} of the lab'

/** Names the part, as parts may begin in the same second and their records end up in one directory. */
export const recordName = ({ name, shard }: Pick<RunOptions, 'name' | 'shard'>): string =>
  shard ? `${name}-${shard.index}of${shard.count}` : name

/** Names of the cases that were asked for, and of those in the run's own part. */
export type Asked = Pick<Plan, 'asked' | 'cases'>

/**
 * Prepares VMs for cases (baselines, locks, a record), lets `use` run them, and puts the VMs back as they were before.
 * Whatever happened, it writes the report of what there is.
 * @param vms number of VMs that each case needs: 1 or 2
 * @param use runs the cases in the labs that share them; there are none for one job, which is the VMs themselves
 */
export async function withStage(
  options: RunOptions,
  { asked, cases }: Asked,
  vms: number[],
  use: (stage: Stage, hosts: string[], labs: Lab[]) => Promise<void>,
): Promise<Ended> {
  const named = new Set(options.hosts)
  if (named.size > 2) {
    throw usage(
      `Cannot run it on ${[...named].join(', ')}: a run has two VMs`,
      'Name two, and run the others separately; put arguments that are no hosts before --host',
    )
  }
  const pause = options.pause ? pauses() : undefined
  const guest = chooseGuest()
  const single = vms.filter((many) => many === 1).length
  // a second VM for a single case would only cost a boot
  const needed = single < vms.length ? 2 : 1
  const most = single > 1 ? 2 : needed
  const offered = await chooseHosts(options.hosts, guest.attribute)
  const hosts = offered.slice(0, most)
  if (hosts.length < needed) {
    throw usage(`Cannot run it on \`${hosts.join(' ')}\` alone`, 'A case needs two VMs: name both')
  }
  const room = hosts.reduce((sum, host) => sum + roomOf(host), 0)
  requireSpace(labHome(), room, `run cases on ${hosts.join(' and ')}`)
  const quiet = Boolean(options.json)
  await sweep(quiet)
  const ground = await standOn(quiet)
  const jobs = jobsOf(
    options.jobs ?? 1,
    hosts,
    vms.length - single + Math.ceil(single / hosts.length),
    ground,
  )
  ground.accelerator.patience *= load(jobs * hosts.length)
  // of every host, so that a baseline does not depend on which of them this run uses
  const all = await chooseHosts(undefined, guest.attribute)
  const found = await theSubject(options.subject, hosts[0]!)
  const subject = options.every ? { ...found, promises: new Set(allPromises) } : found
  const extra = { ...broughtBy(subject), ...options.extra }
  const from = await template(guest, [...new Set([...all, ...hosts])].toSorted(), extra)
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31)
  const anew: Plan = {
    ...{ name: options.name, hosts, seed, flake: from.config, dotfiles: from.dotfiles },
    ...{ lab: labSources(), ground: inWords(ground, subject), shard: options.shard, asked, cases },
    subject: {
      ...{ kind: found.kind, title: found.title, promises: [...found.promises] },
      asked: options.subject,
    },
  }
  const { resume } = options
  const plan = resume ? carriedOn(resume, anew) : anew
  const ofRecord = resume && (await holdRecord(resume.dir))
  const record = resume ? reopenRecord(resume.dir) : openRecord(recordName(options))
  const holds: Lock[] = [ofRecord ?? (await holdRecord(record.dir))]
  record.note({ kind: 'run', name: options.name, phase: 'begin', hosts, seed })
  writePlan(record.dir, plan)
  const flags = options.subject === undefined ? '' : ` --subject ${options.subject}`
  const stage: Stage = {
    ...{ record, ground, subject, flags, from, seed, pause, watch: options.watch },
    ...{ prepared: new Map(), results: [...(resume?.results ?? [])] },
  }
  const copies: HeldCopy[] = []
  const troubles: Failure[] = []
  const endCopies = (): void => {
    for (const { home } of copies) removeCopy(home)
  }
  // Ctrl-C ends the process at once, and the results so far must be readable all the same
  const cutShort = (): void => {
    record.note({ kind: 'run', name: options.name, phase: 'end', of: 1, reason: 'cut short' })
    write(stage, plan, { notes: ['the run was cut short'] })
  }
  const endCopiesNow = (): void => {
    try {
      endCopies()
    } catch {
      // the next run removes a copy that is just being written
    }
  }
  process.once('exit', cutShort)
  process.once('exit', endCopiesNow)
  const forget = whenCutShort(() => ({
    left: `${stage.results.length} cases were run, report: ${join(record.dir, 'report.html')}`,
    goOn: options.goOn ?? 'the same command starts over',
  }))
  try {
    const lanes: Lane<Stage>[] = []
    for (const host of hosts) {
      const hold = await holdVm(host, options.name)
      holds.push(hold)
      lanes.push(prepareLane(host, stage, hold))
    }
    await runLanes(lanes, { quiet })
    const labs = jobs > 1 ? await withCopies(stage, hosts, jobs, copies, quiet) : []
    if (labs.length > 0) {
      const titles = labs.flatMap((lab) => lab.titles)
      plan.lanes = [...new Set([...(resume ? (plan.lanes ?? plan.hosts) : []), ...titles])]
      writePlan(record.dir, plan)
    }
    await use(stage, hosts, labs)
    endCopies()
    if (!options.keep) {
      if (!quiet) console.error(`Putting ${hosts.join(' and ')} back as they were before the cases`)
      const { patience } = ground.accelerator
      // a VM that is put back must not follow the remotes of cases
      closeWorlds(hosts)
      for (const each of stage.prepared.values()) {
        await endFaults(each.vm)
        // the results matter more than the state in which the cases leave a VM
        await leaveAsBefore(each, patience).catch(
          onFailure((failure) => void troubles.push(failure)),
        )
      }
    }
  } finally {
    process.off('exit', cutShort)
    process.off('exit', endCopiesNow)
    forget()
    endCopies()
    for (const { held } of copies) held.release()
    for (const hold of holds) hold.release()
    record.note({ kind: 'run', name: options.name, phase: 'end', of: 1 })
    const told = troubles.map(({ message }) => message)
    troubles.push(...write(stage, plan, { troubles: told }))
    writePlan(record.dir, { ...plan, ended: { troubles: troubles.map(({ message }) => message) } })
    pruneRuns(record.id)
    for (const one of troubles) console.error(explain(options.name, one))
  }
  const results = complete(stage.results, plan.cases, plan)
  return { dir: record.dir, hosts, results, troubles, ground: plan.ground }
}

/** Records the result of a case at once, so that a killed run loses only the case that it was running. */
export function takeDown({ record, results }: Stage, result: CaseResult): void {
  results.push(result)
  writeResults(record.dir, results)
}

/** Result of a run, and what the lab could not do after its cases. */
export interface Ended extends Ran {
  troubles: Failure[]
  /** Accelerator and guest, as one line. */
  ground: string
}

/** Writes the report of what there is. @returns why a file of it could not be written */
function write(
  { record, results }: Stage,
  plan: Plan,
  said: Pick<Run, 'notes' | 'troubles'>,
): Failure[] {
  const { hosts, lanes, seed, shard } = plan
  const ground = shard ? `${plan.ground}; part ${shardName(shard)}` : plan.ground
  const { id, events } = record
  const all = complete(results, plan.cases, plan)
  return writeReports(record, { id, hosts, lanes, seed, ground, ...said, results: all, events })
}

const inWords = ({ accelerator: { kind, reason }, guest }: Ground, { title }: Subject): string =>
  `${kind} (${reason.split('\n')[0]}), guest ${guest.kind}, judged: ${title}`

/**
 * Free bytes that a run requires for a VM: what `saveSnapshot` requires before it saves the VM's former state, and half
 * as much for a baseline that does not exist yet. A snapshot takes less in the end: about 200 MB.
 */
const roomOf = (host: string): number => (hasBaseline(host) ? 1 : 1.5) * 1024 ** 3

/**
 * Factor for each guest on the limits of cases, which are meant for the embedded guest on KVM. Under TCG an upgrade that
 * takes 12 s on the embedded guest took 112 s on NixOS, and a boot 127 s instead of 25 s.
 */
const slowness = { debian: 1, nixos: 2 }

/** Removes the copies that a killed run has left, whose processes still run. */
async function sweep(quiet: boolean): Promise<void> {
  const found = await removeAbandoned()
  if (found.length > 0 && !quiet) console.error(removedInWords(found))
}

/** @param most number of jobs that would have something to do */
function jobsOf(asked: Jobs, hosts: string[], most: number, { accelerator }: Ground): number {
  if (asked === 1) return 1
  const memory = (host: string): number => readVm(host)?.memory ?? 2 * 1024 ** 3
  const sum = (some: string[]): number => some.reduce((all, host) => all + memory(host), 0)
  const room = roomHere(sum(hosts.filter((host) => !isRunning(host))))
  const { kind } = accelerator
  return jobsFor(asked, { vms: hosts.length, memory: sum(hosts), most, accelerator: kind, ...room })
}

/** The labs of a run: its VMs, which are at their baseline, and copies of them, which the caller removes. */
async function withCopies(
  stage: Stage,
  hosts: string[],
  jobs: number,
  copies: HeldCopy[],
  quiet: boolean,
): Promise<Lab[]> {
  let labs: Lab[] = []
  const step: Step<Stage> = {
    title: `${jobs} jobs: ${jobs === 2 ? 'a copy' : `${jobs - 1} copies`} of ${hosts.join(' and ')}`,
    would: () => [],
    run: async (_, say) => {
      const keep = (some: HeldCopy[]): void => void copies.push(...some)
      labs = await openLabs(stage, hosts, jobs, keep, say)
    },
  }
  await runLanes([{ title: 'lab', context: stage, steps: [step] }], { quiet })
  return labs
}

/** Accelerator, guest and base image of the VMs. A base image that is not cached takes a minute, which is shown. */
async function standOn(quiet: boolean): Promise<Ground> {
  const ground = {} as Ground
  const steps: Step<Ground>[] = [
    {
      title: 'preflight',
      would: () => ['look for tools, firmware and accelerator'],
      run: async () => {
        const found = await preflight()
        const { accelerator, guest } = found
        const patience = accelerator.patience * slowness[guest.kind]
        Object.assign(ground, found, { accelerator: { ...accelerator, patience } })
        return `${ground.accelerator.kind}: ${ground.accelerator.reason}`
      },
    },
    {
      title: 'base image',
      would: () => ['build it, unless it is cached'],
      run: async (_, say) => void Object.assign(ground, await baseImage(say)),
    },
  ]
  await runLanes([{ title: 'lab', context: ground, steps }], { quiet })
  return ground
}

const prepareLane = (host: string, stage: Stage, hold: Hold): Lane<Stage> => ({
  title: host,
  context: stage,
  steps: [
    {
      title: 'baseline',
      would: () => [`bring ${host} to its baseline`],
      run: async ({ record, from, ground, subject, prepared }, say) => {
        const began = record.note({ kind: 'step', name: 'baseline', host, phase: 'begin' })
        const world = openWorld(`${record.id}/baseline-${host}`, from, [host])
        prepared.set(
          host,
          await ensureBaseline(host, world, from, ground, subject, hold, record.note, say),
        )
        record.note({ kind: 'step', name: 'baseline', host, phase: 'end', of: began })
      },
    },
  ],
})
