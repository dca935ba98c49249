import { cutFiles, judgeControl, type Control, type Proof } from './control.ts'
import { Failure } from '../failure.ts'
import { buildHosts } from '../nix/host.ts'
import { sshTarget } from '../vm/identity.ts'
import { fromHome } from '../lab-settings.ts'
import { baselinePaths } from './oracle-facts.ts'
import { inHand, runCase, type Chosen, type Stage } from './case.ts'
import { choose } from './run.ts'
import type { Family } from './scenario.ts'
import { withStage, type RunOptions } from './stage.ts'
import { runLanes, type Lane } from '../steps.ts'
import { deleteSnapshot, saveSnapshot } from '../vm/snapshot.ts'
import { connect } from '../ssh/ssh.ts'
import { switchTo } from '../vm/switch.ts'
import { openWorld } from './world.ts'

const tag = 'lab-cut'
const goldenRecord = '/var/lib/golden-generation/golden.json'

interface Cut {
  control: Control
  chosen: Chosen
}

/**
 * Runs controls, those whose case wants one VM side by side and the others after them.
 * @param known where their cases are
 * @returns a proof for each that was run, and the run's directory
 * @throws Failure (usage) for a control of a case that there is none of
 */
export async function runControls(
  controls: Control[],
  known: Family[],
  options: RunOptions,
): Promise<{ dir: string; proofs: Proof[]; troubles: Failure[] }> {
  const cuts = controls.map((control): Cut => ({
    control,
    chosen: choose(known, [control.case])[0]!,
  }))
  const single = cuts.filter(({ chosen }) => (chosen.one.hosts ?? 1) === 1)
  const double = cuts.filter(({ chosen }) => chosen.one.hosts === 2)
  const proofs: Proof[] = []
  const quiet = Boolean(options.json)
  const needed = double.length > 0 ? 2 : 1
  const most = single.length > 1 ? 2 : needed
  const { dir, troubles } = await withStage(options, needed, most, async (stage, hosts) => {
    const dealt = hosts.map((_, lane) => single.filter((_cut, at) => at % hosts.length === lane))
    const lanes = hosts.map((host, index) => laneOf(dealt[index]!, [host], stage, proofs))
    await runLanes(
      lanes.filter(({ steps }) => steps.length > 0),
      quiet,
      true,
    )
    if (double.length > 0) await runLanes([laneOf(double, hosts, stage, proofs)], quiet, true)
  })
  return { dir, proofs, troubles }
}

const laneOf = (cuts: Cut[], hosts: string[], stage: Stage, proofs: Proof[]): Lane<Stage> => ({
  title: hosts.join(' and '),
  context: stage,
  steps: cuts.map(({ control, chosen }) => ({
    title: `${control.name}: ${control.cut}`,
    would: () => [],
    run: async (_, say) => {
      const proof = await runControl(control, chosen, hosts, stage, say)
      proofs.push(proof)
      if (proof.state !== 'caught') throw new Failure(`${proof.state}: ${proof.found}`)
    },
  })),
})

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
      await vm.restore()
      // built here and sent, which spares the guest the minutes of an upgrade of its own
      const built = await world.host(host, cut, stage.ground.store)
      await buildHosts([built], stage.ground.store)
      const target = { ...sshTarget(vm.vm, 'root'), connectTimeout: 30 * vm.patience }
      const ssh = await connect(target)
      await switchTo(ssh, built, stage.ground.store, vm.patience, say)
      await ssh.close()
      const at = fromHome(world.paths.flake)
      await vm.user(`cd ${at} && jj git fetch && jj new ${world.branch}`, {
        timeout: 60 * vm.patience,
      })
      const { toplevel } = built
      // whatever is cut, this boot must come to it: so the lab itself chooses it once
      await vm.root(
        `entry=$(grep -l "init=${toplevel}/init" /boot/loader/entries/nixos-*.conf | head -n 1)
        bootctl set-oneshot "\${entry##*/}"`,
      )
      await vm.reboot({ limit: 90 })
      await vm.root(
        `systemctl start golden-boot-validation.service boot-complete.target
        grep -q -F ${toplevel} ${goldenRecord} || pin-golden
        systemctl stop nix-local-upgrade.timer; ls /nix/store >${baselinePaths}; sync`,
        { timeout: 120 * vm.patience },
      )
      const said = `readlink -f /run/booted-system; grep -o -F ${toplevel} ${goldenRecord}`
      const { stdout } = await vm.root(said)
      if (stdout !== `${toplevel}\n${toplevel}\n`) {
        throw new Failure(`Cannot make the cut of \`${control.name}\` golden on \`${host}\``, {
          evidence: stdout,
        })
      }
      vm.retire()
      await saveSnapshot(vm.vm, tag, 60 * vm.patience)
      prepared.set(host, { ...stage.prepared.get(host)!, tag, toplevel })
    }),
  )
  note({ kind: 'step', name: 'cut', phase: 'end', of: began, hosts })
  const start = { ...stage.from, dir: world.dir, config: cut }
  // its result is the control's, and not one of a case that ought to hold
  const result = await runCase(
    chosen,
    hosts,
    { ...stage, prepared, from: start, enough: control.red },
    say,
  )
  for (const host of hosts) {
    const { vm } = stage.prepared.get(host)!
    await deleteSnapshot(vm, tag, 60).catch(() => {})
  }
  const seconds = (performance.now() - from) / 1000
  const proof = { ...judgeControl(control, result), seconds }
  const { name, cut: what, red } = control
  const states = { caught: 'passed', 'not run': 'error' } as const
  stage.results.push({
    ...{ family: 'prove', case: name, title: `without ${what}, ${control.case} comes out red` },
    ...{ hosts, seconds, seed: stage.seed, oracle: [], replay: `tsx tasks/prove.ts ${name}` },
    state: proof.state in states ? states[proof.state as keyof typeof states] : 'failed',
    reason: proof.state === 'caught' ? '' : `${proof.state}: ${proof.found}`,
    checks: [
      { name: 'red by', held: proof.state === 'caught', expected: String(red), found: proof.found },
    ],
    evidence: result.evidence,
  })
  return proof
}
