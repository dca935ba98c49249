import type { Case, Scene } from './family.ts'
import { booted, comes, comesBack, rebooted } from './trial.ts'
import { bootFile, deployedBy, deploys, module, upgrades } from './upgrade.ts'

/** Settings of a host with another first stage that boots as well: the kernel takes the newline for padding. */
export const largerInitrd = bootFile('initrd', 'cat /lab/boot/initrd > $out; echo >> $out')
const badInitrd = bootFile('initrd', 'echo garbage > $out')

const settings = (text: string): string => `myModules.services.autoUpgrade = { ${text} };`

/** What a host does in the night, with nobody there: it reboots, it waits, it tidies up. */
export const unattended: Case[] = [
  {
    name: 'reboots',
    title: 'reboots are allowed: it boots a new first stage by itself, which becomes golden',
    limit: 400,
    ends: 'main',
    run: async (scene) => {
      const { vm } = scene
      const { toplevel } = await rebootsInto(scene, largerInitrd, deployed)
      const pinned = `[ "$(readlink -f /nix/var/nix/gcroots/golden-generation)" = ${toplevel} ] && show-golden`
      scene.check(
        'it becomes golden',
        /^golden: (?!.*PROBLEM)/s,
        await comes(scene, vm, 'the new one is pinned', 90, pinned),
      )
      await upgrades(scene, vm, { outcome: 'up-to-date' })
    },
  },
  {
    name: 'reboots-back',
    title: 'a commit that does not boot: golden is back, and it is not tried again',
    limit: 400,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const { toplevel, seconds } = await rebootsInto(scene, badInitrd, {
        name: 'golden boots again',
        condition: booted(scene.start(vm)),
      })
      await comesBack(scene, vm, toplevel, /^it did not come up/, seconds)
      await upgrades(scene, vm, { outcome: 'skipped-known-bad' })
    },
  },
  {
    name: 'reboot-waits',
    title: 'outside of the hours for it no reboot comes, and the upgrade says so',
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const hours = "for at in '+2 hours' '+3 hours'; do date -d \"$at\" +%H:%M; done"
      const [lower, upper] = (await vm.root(hours)).stdout.trim().split('\n')
      const later = settings(
        `allowReboot = true; rebootWindow = { lower = "${lower}"; upper = "${upper}"; };`,
      )
      await world.config.commit(module(vm, `{ ${later} }\n`), 'Reboot later')
      await upgrades(scene, vm, { outcome: 'upgraded' })
      await world.config.commit(module(vm, `{ ${later} ${largerInitrd} }\n`), 'Another first stage')
      const before = await vm.bootId()
      const reason = new RegExp(`a reboot is due, and waits for ${lower}-${upper}`)
      await upgrades(scene, vm, { outcome: 'upgraded', reason })
      scene.check('it has not rebooted', before, await vm.bootId())
      const job = 'systemctl list-jobs --no-legend reboot.target'
      scene.check('nor is it about to', '', (await vm.root(job)).stdout.trim())
    },
  },
  {
    name: 'tidies-up',
    title: 'generations that are too old go with their boot entries; golden and the last ones stay',
    limit: 400,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const few = settings('keepGenerations = 1; keepDays = 0;')
      await world.config.commit(module(vm, `{ ${few} }\n`), 'Keep one')
      const first = await deploys(scene, vm)
      await world.config.commit(
        module(vm, `{ ${few} environment.etc."lab-case".text = "two"; }\n`),
        'Two',
      )
      const second = await deploys(scene, vm, { limit: 150 })
      const { stdout } =
        await vm.root(`cd /nix/var/nix/profiles && readlink -f system-*-link | sort -u
        echo; grep -h -o 'init=[^ ]*/init' /boot/loader/entries/nixos-*.conf | sed 's/^init=//; s,/init$,,' | sort -u
        echo; [ -e ${first.toplevel} ] && echo there || echo gone`)
      const [kept, entries, old] = stdout.trim().split('\n\n')
      const wanted = [scene.start(vm), second.toplevel].toSorted().join('\n')
      scene.check('golden and the last one are kept', wanted, kept)
      scene.check('and have entries', wanted, entries)
      scene.check('what was between is collected', 'gone', old)
    },
  },
]

/** The boot of what the upgrade says it deployed. */
const deployed = {
  name: 'the new generation boots',
  condition:
    '[ "$(readlink -f /run/booted-system)" = "$(jq -r .to.toplevel /var/lib/nix-local-upgrade/status.json)" ]',
}

/**
 * Lets a host reboot by itself, then brings it a first stage for which it does.
 * @param into the boot that is to come of it, and a shell condition that holds in it
 * @returns the toplevel that was deployed, and the seconds to that boot
 */
async function rebootsInto(
  scene: Scene,
  stage: string,
  into: { name: string; condition: string },
): Promise<{ toplevel: string; seconds: number }> {
  const { vm, world } = scene
  const allowed = settings('allowReboot = true;')
  await world.config.commit(module(vm, `{ ${allowed} }\n`), 'Allow reboots')
  await upgrades(scene, vm, { outcome: 'upgraded' })
  await world.config.commit(module(vm, `{ ${allowed} ${stage} }\n`), 'Another first stage')
  const before = await vm.bootId()
  await vm.root('systemctl start --no-block nix-local-upgrade.service')
  const wait = { name: 'to reboot by itself', limit: 120, until: into.condition }
  const seconds = await rebooted(scene, vm, into.name, () => vm.awaitBoot(before, wait))
  const status = await vm.status()
  scene.check('the upgrade before it', 'upgraded', status?.outcome ?? undefined)
  scene.check('it said that it reboots', /\brebooting\b/, status?.reason)
  return { toplevel: deployedBy(scene, status).toplevel, seconds }
}
