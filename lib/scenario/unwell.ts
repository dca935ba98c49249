import type { Case, Scene } from './family.ts'
import { killAt } from './interrupted.ts'
import { doAsTold, told } from './told.ts'
import { module, note, oneshot, seen, upgrades } from './upgrade.ts'

const state = '/var/lib/nix-local-upgrade'
const agent = 'nix-local-upgrade'

/** State outside the clone that is not as the agent left it: the ESP, its own records, the boot loader. */
export const unwell: Case[] = [
  {
    name: 'unwell',
    title:
      'the ESP is read-only, or the records of an earlier run are damaged: the commit is not blamed, and the next run carries on',
    promise: 'whole',
    own: true,
    limit: 400,
    ends: 'main',
    run: spoilt,
  },
  {
    name: 'without-golden',
    title:
      'a service fails on a host without a golden generation: the upgrade, and one after a run that was killed, rolls back, including the user’s boot default and one-shot boot entry',
    promise: 'rollback',
    own: true,
    needs: ['golden'],
    limit: 400,
    ends: 'main',
    run: withoutGolden,
  },
]

async function spoilt(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const boot = 'findmnt -no TARGET,OPTIONS /boot | grep -o "[ ,]r[ow],"'
  await world.config.commit(note(vm, 'two'), 'Two')
  const fault = scene.fault('read-only ESP', vm.host)
  await vm.root('mount -o remount,ro /boot')
  const mounted = await vm.ask(boot)
  fault.bit(mounted.includes('ro'), mounted)
  const reason = /^\/boot is mounted read-only, so no new generation can be made to boot: /
  const refused = await upgrades(scene, vm, { outcome: 'failed', phase: 'switch', reason })
  check('the former system still runs', scene.start(vm), await vm.running())
  await doAsTold(scene, vm, `\`sudo ${/`([^`]+)`/.exec(refused.reason ?? '')?.[1] ?? 'false'}\``)
  const again = await vm.ask(boot)
  fault.healed(again.includes('rw'), again)

  // a disk that was repaired may have kept only a part of them
  await vm.root(`echo '{"stage": "sys' >${state}/transaction.json; echo x >${state}/deployed`)
  const { reason: said } = await upgrades(scene, vm, { outcome: 'upgraded' })
  check(
    'the reason names the damaged records',
    /an earlier run did not end, and its record cannot be read/,
    said ?? '',
  )
  check('the commit runs', 'two', await seen(vm))
  await upgrades(scene, vm, { outcome: 'up-to-date' })

  const status = async (): Promise<string> =>
    (await vm.root(`cat ${state}/status.json; ls ${state}`)).stdout
  const before = await status()
  const exits = async (exec: typeof vm.root, command: string): Promise<number> =>
    (await exec(command, { allow: 'any' })).code
  check('a mistyped option exits with 2', 2, await exits(vm.root, `${agent} --acept x`))
  check('--accept without a commit exits with 2', 2, await exits(vm.root, `${agent} --accept`))
  check('an upgrade by another user exits with 1', 1, await exits(vm.user, agent))
  const due = await vm.root(`${agent} --reboot 2>&1`)
  check('nix-local-upgrade --reboot says that none is due', /no reboot is due/, due.stdout)
  check('the agent’s records are unchanged', before, await status())
}

async function withoutGolden(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const entry = 'auto-windows'
  const variables = `bootctl status 2>/dev/null | grep -i 'default entry'; od -An -c /sys/firmware/efi/efivars/LoaderEntryDefault-*; ls /sys/firmware/efi/efivars | grep LoaderEntryOneShot`
  await vm.root(`unpin-golden && bootctl set-default ${entry}`)
  const before = (await vm.root(variables, { allow: 'any' })).stdout
  scene.must('the user’s boot default is set', new RegExp(entry), before)
  const bootctl = '${pkgs.systemd}/bin/bootctl'
  const others = `${bootctl} set-default auto-reboot; ${bootctl} set-oneshot auto-poweroff`
  const bad = `{ pkgs, ... }: { ${oneshot('lab-bad', 'false')} boot.loader.systemd-boot.extraInstallCommands = "${others}"; }\n`
  await world.config.commit(module(vm, bad), 'Bad')
  const reason = /^lab-bad\.service has failed/
  // the next run goes back to what this one has recorded
  await killAt(vm, () => vm.holdUpgradeAt('validate', { limit: 120 }))
  await upgrades(scene, vm, { outcome: 'validation-failed', reason })
  check(
    'the user’s boot default and one-shot entry are unchanged',
    before,
    (await vm.root(variables, { allow: 'any' })).stdout,
  )
  check('the former system still runs', scene.start(vm), await vm.running())
  await vm.root("bootctl set-default ''")
  await told(scene, vm, 'pin-golden')
  await world.config.commit(note(vm, 'two'), 'Two')
  await upgrades(scene, vm, { outcome: 'upgraded' })
  check('a good commit runs', 'two', await seen(vm))
}
