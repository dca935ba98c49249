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
/** First guess of the seconds that a control takes besides its case: a switch, a boot and a snapshot. */
const secondsOfACut = 40
const goldenRecord = '/var/lib/golden-generation/golden.json'

interface Cut {
  control: Control
  chosen: Chosen
}

const named = ({ control }: Cut): string => `prove/${control.name}`

/** Seconds that a control takes, times the number of its VMs. */
const vmSecondsOf = (cut: Cut, took: Seconds): number => {
  const vms = cut.chosen.one.hosts ?? 1
  const known = took[named(cut)]
  return known === undefined ? vmSeconds(cut.chosen, took) + secondsOfACut * vms : known * vms
}

/**
 * The controls of a part, divided by recorded times; all controls if no part is given.
 * @throws Failure (usage) for a control whose case does not exist
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
 * Runs controls: those whose case needs one VM side by side, then those that need two. Each verdict is written to the
 * run's `proofs.json` at once.
 * @param known the families that contain their cases
 * @returns a proof for each control that was run, the number that should have run, and the run's directory
 * @throws Failure (usage) for a control whose case does not exist, or whose pattern matches no check
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
  // a patch that does not fit fails here, before a VM is touched
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

/** The controls that a run left undone. @throws Failure (usage) if one was a patch file */
function controlsLeft(controls: Control[], resume: Part): Control[] {
  return leftOf(resume).map((name) => {
    const found = controls.find((one) => name === `prove/${one.name}`)
    if (found) return found
    throw usage(
      `Cannot carry on \`${resume.dir}\`: \`${name.slice(6)}\` was a patch file, not a control`,
      'Name the patch files once more, without --resume',
    )
  })
}

/** The verdicts that a run had reached when it was cut short. */
function proofsOf({ dir, results }: Part): Proof[] {
  const file = join(dir, 'proofs.json')
  const all = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Proof[]) : []
  return all.filter((proof) => results.some((one) => one.case === proof.control))
}

/** A file of the flake on disk, from which the remotes of cases are made. */
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

/** The verdict of a control that could not be run. */
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
 * Runs a control: switches the VMs from their baseline to a generation with the net cut, boots it and makes it golden.
 * That state is the baseline of the case, which has to come out red.
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
      // built here and sent, which is minutes faster than an upgrade in the guest
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
      // the cut may break what chooses the boot entry, so the lab sets the one-shot entry itself
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
    // the result counts for the control, not for the case
    tries.push(judgeControl(control, await runCase(chosen, hosts, cutStage, say)))
  } while (undecided(tries, red))
  for (const host of hosts) {
    const { vm } = stage.prepared.get(host)!
    await deleteSnapshot(vm, tag, 60).catch(() => {})
  }
  return { ...settle(tries), seconds: (performance.now() - from) / 1000 }
}
