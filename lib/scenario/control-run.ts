import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { canBeRed } from './check-names.ts'
import {
  cutFiles,
  judgeControl,
  replayOfControl,
  resultOf,
  settle,
  undecided,
  type Control,
  type Proof,
} from './control.ts'
import { Failure, usage } from '../failure.ts'
import { flakeDirectory } from '../flake/directory.ts'
import { buildHosts } from '../nix/host.ts'
import { sshTarget } from '../vm/identity.ts'
import { fromHome } from '../lab-settings.ts'
import { baselinePaths } from './oracle-questions.ts'
import { inHand, putBack, runCase } from './case.ts'
import type { Chosen, Family, Stage } from './family.ts'
import { choose, vmSeconds } from './run.ts'
import { statusLog, watcherUnit } from './status-log.ts'
import { takeDown, withStage, type RunOptions } from './stage.ts'
import { shareOut, type OpenLab } from './labs.ts'
import { leftOf } from '../report/cut-short.ts'
import type { Part } from '../report/merge.ts'
import { deal, partOf } from '../report/shard.ts'
import { Lost } from '../share.ts'
import type { SharedStep } from '../shared-steps.ts'
import { runLanes, type Lane } from '../steps.ts'
import { deleteSnapshot, saveSnapshot } from '../vm/snapshot.ts'
import { connected } from '../ssh/ssh.ts'
import { counting } from '../retry.ts'
import { durations, remember, sharedDurations, type Seconds } from './durations.ts'
import { switchTo } from '../vm/switch.ts'
import { writeJson } from '../vm/vm.ts'
import { openWorld } from './world.ts'

const tag = 'lab-cut'
/** What a control takes besides its case, by the first guess: a switch, a boot and a snapshot. */
const secondsOfACut = 40
const goldenRecord = '/var/lib/golden-generation/golden.json'

interface Cut {
  control: Control
  chosen: Chosen
}

const named = ({ control }: Cut): string => `prove/${control.name}`

/** Seconds that a control takes, times the VMs that it has. */
const vmSecondsOf = (cut: Cut, took: Seconds): number => {
  const vms = cut.chosen.one.hosts ?? 1
  const known = took[named(cut)]
  return known === undefined ? vmSeconds(cut.chosen, took) + secondsOfACut * vms : known * vms
}

/**
 * The controls of a part, by recorded times; all of them without a part.
 * @throws Failure (usage) for a control of a case that there is none of
 */
export function controlsOf(
  controls: Control[],
  known: Family[],
  { shard, durations: path }: Pick<RunOptions, 'shard' | 'durations'>,
): Control[] {
  const shared = sharedDurations(path)
  const cuts = controls.map((control): Cut => ({
    control,
    chosen: choose(known, [control.case])[0]!,
  }))
  return partOf(cuts, shard, (cut) => vmSecondsOf(cut, shared), 'control').map(
    ({ control }) => control,
  )
}

/**
 * Runs controls, those whose case wants one VM side by side and the others after them. Each verdict is
 * written to the run's `proofs.json` as it comes.
 * @param known where their cases are
 * @returns a proof for each that was run, how many there were to be, and the run's directory
 * @throws Failure (usage) for a control of a case that there is none of, or whose pattern no check can have
 */
export async function runControls(
  controls: Control[],
  known: Family[],
  options: RunOptions,
): Promise<{ dir: string; proofs: Proof[]; wanted: number; troubles: Failure[] }> {
  const { resume } = options
  const ofPart = resume ? controlsLeft(controls, resume) : controlsOf(controls, known, options)
  const cuts = ofPart.map((control): Cut => {
    const chosen = choose(known, [control.case])[0]!
    if (canBeRed(control)) return { control, chosen }
    const hint = `Its pattern is ${control.red}; tsx tasks/${chosen.family.name}.ts prints the names of checks in its report`
    throw usage(
      `Cannot prove \`${control.name}\`: no check of \`${control.case}\` is named so`,
      hint,
    )
  })
  // before a VM is touched
  for (const { control } of cuts) await cutFiles(control, ofTheFlake)
  const single = cuts.filter(({ chosen }) => (chosen.one.hosts ?? 1) === 1)
  const double = cuts.filter(({ chosen }) => chosen.one.hosts === 2)
  const order = resume?.plan.cases ?? cuts.map(named)
  const proofs = resume ? proofsOf(resume) : []
  const quiet = Boolean(options.json)
  const vms = cuts.map(({ chosen }) => chosen.one.hosts ?? 1)
  const asked = { asked: controls.map(({ name }) => `prove/${name}`), cases: cuts.map(named) }
  const took = durations()
  const redOf = ({ control }: Proof): RegExp =>
    cuts.find((cut) => cut.control.name === control)!.control.red
  const { dir, troubles } = await withStage(options, asked, vms, async (stage, hosts, labs) => {
    const place = ({ control }: Proof): number => order.indexOf(`prove/${control}`)
    const keep = (proof: Proof): void => {
      proofs.push(proof)
      proofs.sort((a, b) => place(a) - place(b))
      takeDown(stage, resultOf(proof, redOf(proof)))
      writeJson(join(stage.record.dir, 'proofs.json'), proofs)
    }
    if (labs.length > 0) {
      const steps = cuts.map((cut) => sharedCut(cut, hosts, keep, took))
      return shareOut(steps, labs, stage, quiet, ({ cut, vms: many }, why) =>
        keep(notRun(cut.control, hosts.slice(0, many), stage.seed, why)),
      )
    }
    const dealt = deal(single, hosts.length, (cut) => vmSecondsOf(cut, took))
    const lanes = dealt.map((some, index) => laneOf(some, [hosts[index]!], stage, keep, took))
    const both = { ...laneOf(double, hosts, stage, keep, took), after: true }
    await runLanes(
      [...lanes, both].filter(({ steps }) => steps.length > 0),
      { quiet, cases: true },
    )
  })
  return { dir, proofs, wanted: order.length, troubles }
}

/** @throws Failure (usage) where it ran a patch that is no control of this project */
function controlsLeft(controls: Control[], resume: Part): Control[] {
  return leftOf(resume).map((name) => {
    const found = controls.find((one) => name === `prove/${one.name}`)
    if (found) return found
    throw usage(
      `Cannot carry on \`${resume.dir}\`: \`${name.slice(6)}\` was a patch file, and no control`,
      'Name the patch files once more, without --resume',
    )
  })
}

/** The verdicts of a run that was cut short, of those that have one. */
function proofsOf({ dir, results }: Part): Proof[] {
  const file = join(dir, 'proofs.json')
  const all = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Proof[]) : []
  return all.filter((proof) => results.some((one) => one.case === proof.control))
}

/** A file of the flake as it is on the disk, which the remotes of cases are made of. */
const ofTheFlake = async (path: string): Promise<string | undefined> => {
  const file = join(flakeDirectory(), path)
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined
}

const laneOf = (
  cuts: Cut[],
  hosts: string[],
  stage: Stage,
  keep: (proof: Proof) => void,
  took: Seconds,
): Lane<Stage> => ({
  title: hosts.join(' and '),
  context: stage,
  steps: cuts.map((cut) => ({
    title: titleOf(cut),
    would: () => [],
    usually: usuallyOf(cut, took),
    run: (_, say) => step(cut, hosts, { use: (work) => work(stage) }, keep, say),
  })),
})

const titleOf = ({ control }: Cut): string => `${control.name}: ${control.cut}`

const usuallyOf = ({ control }: Cut, took: Seconds): number =>
  took[`prove/${control.name}`] ?? (took[control.case] ?? 0) + secondsOfACut

/** Runs a control in a lab, as a step. */
async function step(
  { control, chosen }: Cut,
  hosts: string[],
  { use }: OpenLab,
  keep: (proof: Proof) => void,
  say: (line: string) => void,
): Promise<void> {
  const proof = await use((stage) =>
    runControl(control, chosen, hosts, stage, say).catch((thrown: unknown) => {
      if (thrown instanceof Lost) throw thrown
      return notRun(control, hosts, stage.seed, thrown)
    }),
  )
  keep(proof)
  if (proof.state !== 'caught') throw new Failure(`${proof.state}: ${proof.found}`)
  remember(`prove/${control.name}`, proof.seconds)
}

interface SharedCut extends SharedStep<OpenLab> {
  cut: Cut
}

const sharedCut = (
  cut: Cut,
  hosts: string[],
  keep: (proof: Proof) => void,
  took: Seconds,
): SharedCut => ({
  cut,
  title: titleOf(cut),
  vms: cut.chosen.one.hosts ?? 1,
  usually: usuallyOf(cut, took),
  seconds: vmSecondsOf(cut, took),
  run: (lab, vms, say) => {
    const own = vms.map((vm) => hosts[vm]!)
    return step(cut, own, lab, keep, say)
  },
})

/** A control that could not even be cut has a verdict, too. */
function notRun(control: Control, hosts: string[], seed: number, thrown: unknown): Proof {
  if (!(thrown instanceof Failure)) throw thrown
  const { name, cut, case: ofCase } = control
  return {
    ...{ control: name, cut, case: ofCase, hosts, seed, state: 'not run', seconds: 0 },
    found: [thrown.message, thrown.detail.evidence].filter(Boolean).join('\n'),
    replay: replayOfControl(control, hosts, seed),
  }
}

/**
 * Runs a control: the VMs go from their baseline to a generation with the net cut, boot into it, make
 * it golden, and so become the baseline of the case that has to come out red.
 */
async function runControl(
  control: Control,
  chosen: Chosen,
  hosts: string[],
  stage: Stage,
  say: (line: string) => void,
): Promise<Proof> {
  const from = performance.now()
  const { note } = stage.record
  const began = note({ kind: 'step', name: 'cut', phase: 'begin', hosts, control: control.name })
  const world = openWorld(`${stage.record.id}/cut-${control.name}`, stage.from, hosts)
  const cut = await world.config.commit(
    await cutFiles(control, (path) => world.config.read(path)),
    `Cut: ${control.cut}`,
  )
  const prepared = new Map(stage.prepared)
  await Promise.all(
    hosts.map(async (host) => {
      const vm = inHand(host, stage, say)
      await putBack([vm], stage)
      // built here and sent, which spares the guest the minutes of an upgrade of its own
      const built = await world.host(host, cut, stage.ground.store)
      await buildHosts([built], stage.ground.store, say)
      const target = { ...sshTarget(vm.vm, 'root'), connectTimeout: 30 * vm.patience }
      await connected(target, (root) => switchTo(root, built, stage.ground.store, vm.patience, say))
      const at = fromHome(world.paths.flake)
      await counting('fetch the cut', 60 * vm.patience, say, () =>
        vm.user(`cd ${at} && jj git fetch && jj new ${world.branch}`, {
          timeout: 60 * vm.patience,
        }),
      )
      const { toplevel } = built
      // whatever is cut, this boot must come to it: so the lab itself chooses it once
      await vm.root(
        `entry=$(grep -l "init=${toplevel}/init" /boot/loader/entries/nixos-*.conf | head -n 1)
        bootctl set-oneshot "$(basename "$entry" | sed 's/+[0-9-]*\\.conf$/.conf/')"`,
      )
      await vm.reboot({ limit: 90 })
      const pinned = (): Promise<unknown> =>
        vm.root(
          `systemctl start golden-boot-validation.service boot-complete.target
        grep -q -F ${toplevel} ${goldenRecord} || pin-golden
        systemctl stop nix-local-upgrade.timer; : >${statusLog}; systemctl restart ${watcherUnit}; ls /nix/store >${baselinePaths}; sync`,
          { timeout: 120 * vm.patience },
        )
      await counting('make the cut golden', 120 * vm.patience, say, pinned)
      const said = `readlink -f /run/booted-system; grep -o -F ${toplevel} ${goldenRecord}`
      const { stdout } = await vm.root(said)
      if (stdout !== `${toplevel}\n${toplevel}\n`) {
        throw new Failure(`Cannot make the cut of \`${control.name}\` golden on \`${host}\``, {
          evidence: stdout,
        })
      }
      vm.retire()
      await counting('save', 60 * vm.patience, say, () =>
        saveSnapshot(vm.vm, tag, 60 * vm.patience),
      )
      prepared.set(host, { ...stage.prepared.get(host)!, tag, toplevel })
    }),
  )
  note({ kind: 'step', name: 'cut', phase: 'end', of: began, hosts })
  const { name, red } = control
  const replay = replayOfControl(control, hosts, stage.seed)
  const cutStage = {
    ...stage,
    prepared,
    from: { ...stage.from, dir: world.dir, config: cut },
    control: { name, red, replay },
  }
  const tries: Proof[] = []
  do {
    // its result is the control's, and not one of a case that ought to hold
    tries.push(judgeControl(control, await runCase(chosen, hosts, cutStage, say)))
  } while (undecided(tries, red))
  for (const host of hosts) {
    const { vm } = stage.prepared.get(host)!
    await deleteSnapshot(vm, tag, 60).catch(() => {})
  }
  return { ...settle(tries), seconds: (performance.now() - from) / 1000 }
}
