import type { Scene, TrialCase } from './family.ts'
import { apartFromTime, refused, said, state, variables } from './golden-state.ts'
import { told } from './told.ts'
import { bootStatus, comes, harmless, rebuild, validated } from './trial.ts'
import { deploys, note, upgrades } from './upgrade.ts'

/** Golden is damaged from outside, or its state cannot be written. */
export const goldenDamaged: TrialCase[] = [
  {
    name: 'golden-in-pieces',
    title:
      'GC root, boot entry, copies, default and record of golden are damaged: each problem is named, and a rebuild, a validation or a pin repairs it',
    own: true,
    limit: 300,
    ends: 'golden',
    run: goldenInPieces,
  },
  {
    name: 'variables-read-only',
    title:
      'the boot loader’s variables cannot be written: a rebuild and an upgrade are refused, golden still boots, and a later upgrade is deployed',
    own: true,
    limit: 300,
    ends: 'main',
    run: variablesReadOnly,
  },
]

/** @returns for each damage its name, a command that does it, the problems to report, and a command that repairs it */
function damages(golden: string): [string, string, RegExp[], string][] {
  const root = '/nix/var/nix/gcroots/golden-generation'
  const entry = '/boot/loader/entries/golden-*.conf'
  const copy = (key: string): string => `/boot$(sed -n "s/^${key} //p" ${entry})`
  // what the boot entry installer calls
  const rebuilt = `golden-arm-trial ${golden}`
  const again = 'systemctl restart golden-boot-validation.service'
  const other = `"$(cd /boot/loader/entries && basename "$(grep -l init=${golden}/init nixos-*.conf | tail -n 1)")"`
  const named = `sed -i 's|${golden}|/nix/store/${'0'.repeat(32)}-collected|' ${state}/golden.json`
  return [
    [
      'GC root, entry and default gone',
      `rm ${root} ${entry}; bootctl set-default ${other}`,
      [
        /golden-generation does not keep it from garbage collection/,
        /is missing/,
        /it is not the boot default/,
      ],
      rebuilt,
    ],
    ['entry emptied', `: >$(ls ${entry})`, [/\.conf is missing/], again],
    ['entry without a kernel', `sed -i /^linux/d ${entry}`, [/names no kernel/], rebuilt],
    ['kernel emptied', `: >${copy('linux')}`, [/EFI\/golden\/\S+ is missing or empty/], rebuilt],
    ['first stage gone', `rm ${copy('initrd')}`, [/EFI\/golden\/\S+ is missing or empty/], again],
    [
      'kernel changed, GC root moved',
      `printf x | dd of=${copy('linux')} bs=1 seek=5000 conv=notrunc status=none; ln -sfn /nix/store ${root}`,
      [
        /golden-generation does not keep it from garbage collection/,
        /differs from the kernel in the store/,
      ],
      'pin-golden',
    ],
    [
      'first stage cut',
      `truncate -s 5000 ${copy('initrd')}`,
      [/differs from the first stage in the store/],
      'pin-golden',
    ],
    [
      'record names a collected golden',
      named,
      [/does not keep it from garbage collection/, /it is not in the store/],
      'pin-golden',
    ],
  ]
}

async function goldenInPieces(scene: Scene): Promise<void> {
  const { vm, check } = scene
  const golden = scene.start(vm)
  const start = await apartFromTime(vm)
  for (const [what, damage, problems, mends] of damages(golden)) {
    await vm.root(`${damage}; sync -f /boot`)
    const shown = await said(vm, 'show-golden')
    check(`${what}: show-golden fails`, /^1 /, shown)
    const found = [...shown.matchAll(/^PROBLEM (.*)$/gm)].map(([, problem]) => problem)
    const missed = problems.filter((one) => !found.some((problem) => one.test(problem!)))
    const wrong = found.length === problems.length && missed.length === 0 ? '' : shown
    check(`${what}: each problem is named, and no other`, '', wrong)
    if (found.some((problem) => /not in the store/.test(problem!))) {
      const lost = /Cannot go back: \S+ is not in the store$/
      await refused(scene, 'a rollback to a collected golden', lost, 'rollback-to-golden')
    }
    await told(scene, vm, mends)
    check(`${what}: all is repaired`, start, await apartFromTime(vm))
    check(
      `${what}: then show-golden finds no problem`,
      /^0 golden: (?!.*PROBLEM)/s,
      await said(vm, 'show-golden'),
    )
  }
}

async function variablesReadOnly(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const golden = scene.start(vm)
  const remounted = async (as: 'ro' | 'rw'): Promise<string> =>
    said(vm, `mount -o remount,${as} ${variables} && bootctl set-timeout ''`)
  const fault = scene.fault('EFI variables read-only', vm.host)
  const bit = await remounted('ro')
  fault.bit(!bit.startsWith('0 '), bit)

  const unset = "Cannot put \\S+ on trial: the boot loader's one-shot entry cannot be set"
  const { code, said: why, toplevel } = await rebuild(scene, vm, harmless)
  check('the rebuild is refused', 1, code)
  check('the refused rebuild says why', new RegExp(unset), why)
  const after = await bootStatus(scene, vm)
  check('golden is the boot default', after['goldenEntry'] ?? 'none', after['default'])
  check('nothing is on trial', 'null null', `${after['trial']} ${after['oneshot']}`)
  check('the profile is the rebuilt system', toplevel, after['profile'])
  await told(scene, vm, 'rollback-to-golden')
  const back = await bootStatus(scene, vm)
  check('golden is the profile again', golden, back['profile'])

  await world.config.commit(note(vm, 'two'), 'Two')
  await upgrades(scene, vm, { outcome: 'failed', phase: 'switch', reason: new RegExp(unset) })
  check('nothing of the commit runs', golden, await vm.running())
  const last = await bootStatus(scene, vm)
  check(
    'golden is the profile, with no one-shot entry',
    `${golden} null`,
    `${last['profile']} ${last['oneshot']}`,
  )

  const healed = await remounted('rw')
  fault.healed(healed.startsWith('0 '), healed)
  // the commit was not to blame, so it is tried again
  const { toplevel: deployed } = await deploys(scene, vm)
  const now = await bootStatus(scene, vm)
  check('the deployed generation is on trial', deployed, now['trial'])
  await comes(scene, vm, 'the boot is validated', 30, validated)
}
