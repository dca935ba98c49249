import { rmSync, writeFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Case, Scene } from './family.ts'
import { ownFiles } from './host-module.ts'
import type { Machine } from './machine.ts'
import { realise } from '../nix/nix.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'
import { uplink } from '../vm/qemu.ts'
import { breakCache, serveStore, type CacheFault } from '../vm/served.ts'
import { deploys, module, seen, upgrades } from './upgrade.ts'

const word = 'packaged'

/**
 * A package like those of nixpkgs: its source is fetched, and its output is in a binary cache. No guest can fetch
 * the source, so if the guest has the package, it came from the cache.
 */
const definition = `let
  source = import <nix/fetchurl.nix> {
    name = "lab-source";
    url = "http://${uplink.git}/lab-source";
    sha256 = "${createHash('sha256').update(word).digest('hex')}";
  };
in
derivation {
  name = "lab-package";
  system = "x86_64-linux";
  builder = "/bin/sh";
  inherit source;
  # 192 KiB, with what a shell has in it
  args = [ "-c" "text=lab; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do text=$text$text; done; echo ${word} $text > $out" ];
}
`

const faults: { fault: CacheFault; title: string; outcome: string; reason: RegExp }[] = [
  {
    fault: 'gone',
    title: 'the binary cache and the source are gone',
    outcome: 'offline',
    reason: /^Cannot fetch what the build needs: /,
  },
  {
    fault: 'cut',
    title: 'the binary cache breaks off in the middle of a path',
    outcome: 'offline',
    reason: /^Cannot fetch what the build needs: /,
  },
  {
    fault: 'wrong',
    title: 'the binary cache serves a path with the wrong contents',
    outcome: 'failed',
    reason: /^The binary cache served other contents than it announced: /,
  },
]

/** Upgrades that need a package from the binary cache on uplink. */
export const cached: Case[] = [
  {
    name: 'cache-slow',
    title:
      'a package comes from the binary cache over a slow line: the upgrade takes longer, but succeeds',
    promise: 'offline',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { begin } = await import('../fault/case.ts')
      const { vm } = scene
      const path = await offer(scene)
      const end = await begin(scene, [vm], {
        ...{ link: 'uplink', direction: 'both', kind: 'rate', value: 128 },
      })
      await deploys(scene, vm, { waits: 60 })
      await end()
      await arrived(scene, vm, path)
    },
  },
  ...faults.map(({ fault, title, outcome, reason }): Case => ({
    name: `cache-${fault}`,
    title: `${title}: nothing is stored or deployed, and the next run deploys the same commit`,
    promise: 'offline',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm } = scene
      const path = await offer(scene)
      const whole = await fetched(vm, path)
      const announced = scene.fault(`binary cache ${fault}`, vm.host)
      breakCache(vm.host, fault)
      const bitten = await fetched(vm, path)
      announced.bit(bitten !== whole, bitten)
      await upgrades(scene, vm, { outcome, reason, phase: 'build', waits: 30 })
      scene.check('nothing was deployed', scene.start(vm), await vm.running())
      const said = await vm.ask(`nix-store --check-validity ${path} 2>/dev/null; echo $?`)
      scene.check('the store does not have the package', '1', said)
      serveStore(vm.host, vm.vm.guest)
      const healed = await fetched(vm, path)
      announced.healed(healed === whole, healed)
      await deploys(scene, vm)
      await arrived(scene, vm, path)
    },
  })),
]

/** Commits a package that this machine has built and a guest cannot build. @returns its store path */
async function offer({ vm, world, store }: Scene): Promise<string> {
  const scratch = scratchDirectory('package')
  try {
    writeFileSync(join(scratch, 'lab-source'), word)
    writeFileSync(join(scratch, 'package.nix'), definition)
    await run('nix-store', [...store, '--add-fixed', 'sha256', join(scratch, 'lab-source')])
    const made = await run('nix-instantiate', [...store, join(scratch, 'package.nix')])
    const [path] = await realise([made.stdout.trim()], store)
    const source = `"\${import ../package.nix}"`
    await world.config.commit(
      {
        ...module(vm, `{ environment.etc."lab-case".source = ${source}; }\n`),
        [`${ownFiles}/package.nix`]: definition,
      },
      'A package',
    )
    return path!
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

/** Downloads a path in the guest. @returns curl's exit status and a hash of what arrived */
async function fetched(vm: Machine, path: string): Promise<string> {
  const url = `http://${uplink.git}/nar/${path.split('/').at(-1)}.nar`
  const script = `curl --silent --max-time 60 --output /run/lab-nar ${url}; echo "curl exits with $?"
    sha256sum /run/lab-nar 2>/dev/null | cut -c 1-16; rm -f /run/lab-nar`
  const said = await vm.ask(script, { timeout: 90 * vm.patience })
  return said.replace('\n', ', contents ')
}

async function arrived(scene: Scene, vm: Machine, path: string): Promise<void> {
  scene.check('the system has the package', word, (await seen(vm)).split(' ')[0])
  scene.check(
    'the package in the store is intact',
    '0',
    await vm.ask(`nix-store --verify-path ${path}; echo $?`),
  )
}
