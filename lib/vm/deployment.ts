import { existsSync } from 'node:fs'
import { createDisk, firstGeneration } from './disk.ts'
import { Failure, onFailure } from '../failure.ts'
import { demandedAccelerator } from './accelerator.ts'
import { baseImage, preflight, type Ground } from './ground.ts'
import { chooseGuest, guestStore } from '../nix/guest.ts'
import { buildHosts, readHost } from '../nix/host.ts'
import { ensureIdentity, ensureLabKey, sshTarget, writeSshConfigOfAll } from './identity.ts'
import { checkDisk, diskSize } from '../image/qcow2.ts'
import { deployment, sameGuest, type Deployment } from './wanted.ts'
import { labSettings } from '../lab-settings.ts'
import { freePort, isFree, portsOfOthers, preferredPort } from './port.ts'
import { gib, requireMemory, requireSpace } from './preflight.ts'
import { ensureKeeper, qemuArgs, startQemu, stopVm, waitForGuest } from './qemu.ts'
import { labCache, labFlake, labHome } from '../settings.ts'
import { counting } from '../retry.ts'
import { connected } from '../ssh/ssh.ts'
import { settle } from './settle.ts'
import { goOn } from './snapshot.ts'
import { runLanes, type Lane, type Step } from '../steps.ts'
import { dotfilesSource, labRemotes, serveLab } from './remotes.ts'
import { ensureRemotes, subscribe } from './subscribe.ts'
import { runningToplevel, switchTo } from './switch.ts'
import {
  files,
  freeSlot,
  hasDisk,
  isRunning,
  newUuid,
  readVm,
  recordVm,
  theVm,
  withVms,
  writeVm,
  type Vm,
} from './vm.ts'

export { deployment, type Deployment }

/**
 * Deploys VMs in parallel. Takes the lock of each first, so that a second deploy of the same VM fails
 * at once and names this one.
 * @param say called with what a quiet deploy waits for
 */
export async function deploy(
  deployments: Deployment[],
  quiet = false,
  say?: (line: string) => void,
): Promise<void> {
  const hosts = deployments.map(({ host }) => host)
  await withVms(hosts, 'deploy', async () => {
    await runLanes([groundLane(deployments)], { quiet, say })
    await runLanes(deployments.map(lane), { quiet, say })
  })
}

export const groundLane = (deployments: Deployment[]): Lane<Deployment> => ({
  title: 'lab',
  context: deployments[0]!,
  steps: [
    {
      title: 'preflight',
      would: () => [
        'look for tools, firmware, memory and disk space',
        ...(demandedAccelerator() === 'tcg'
          ? []
          : ['boot a probe guest under KVM, once per boot of this machine']),
      ],
      run: async () => {
        // throws for a wrong LAB_DOTFILES now; the dotfiles are published only once the VMs run
        dotfilesSource()
        const found = await preflight()
        const asleep = deployments.filter(({ host }) => !isRunning(host))
        requireMemory(asleep.reduce((sum, each) => sum + memoryOf(each), 0))
        requireSpace(labHome(), 1024 ** 3, 'make the disks of the VMs')
        await ensureLabKey()
        for (const each of deployments) Object.assign(each.ground, found)
        const { accelerator, guest } = found
        return `${accelerator.kind}: ${accelerator.reason}; guest ${guest.kind}: ${guest.reason}`
      },
    },
    {
      title: 'evaluate',
      would: () => [
        'evaluate every host, so that a mistake in the flake is reported before anything is made',
      ],
      run: async () => {
        const { attribute } = chooseGuest()
        const store = guestStore()
        const read = async (each: Deployment): Promise<void> => {
          each.built = await readHost(each.host, attribute, store, labFlake(), each.disko)
          each.builtIn = storeIn(store)
        }
        await Promise.all(deployments.map(read))
      },
    },
    {
      title: 'base image',
      skip: () => chooseGuest().kind === 'nixos' && 'NixOS has a disk of its own for each host',
      would: () => [`build it under ${labCache()}, unless it is cached`],
      run: async (_, say) => {
        const found = await baseImage(say)
        for (const each of deployments) Object.assign(each.ground, found)
      },
    },
  ],
})

/** The directory that options of nix name as the store; undefined for the machine's own. */
const storeIn = (options: string[]): string | undefined => options[options.indexOf('--store') + 1]

export const lane = (context: Deployment): Lane<Deployment> => ({
  title: context.host,
  context,
  steps,
})

const steps: Step<Deployment>[] = [
  {
    title: 'build',
    would: ({ host }) => [`build ${chooseGuest().attribute}.${host}.config.system.build.toplevel`],
    run: async (c, say) => {
      sameGuest(c)
      c.ground.store ??= guestStore(c.ground.guest)
      // the embedded guest's derivations belong in the store of its image, which may be newer than the evaluation
      if (!c.built || c.builtIn !== storeIn(c.ground.store)) {
        const { attribute } = c.ground.guest
        c.built = await readHost(c.host, attribute, c.ground.store, labFlake(), c.disko)
      }
      await buildHosts([c.built], c.ground.store, say)
    },
  },
  {
    title: 'disk and identity',
    skip: ({ host, fresh }) => !fresh && hasDisk(host) && 'it has its disk',
    would: ({ host, fresh, disko }) => [
      ...(fresh ? [`cut the power of ${host} and delete ${files(host).disk}`] : []),
      ...(disko ? [`run disko's image builder for ${host}, unless its image is cached`] : []),
      `create ${files(host).disk}, an overlay on generation 1 of ${host}`,
      `create ${files(host).vars} and ${files(host).hostKey}`,
    ],
    run: async (c, say) => {
      c.changed = true
      const old = readVm(c.host)
      if (old) await stopVm(old, 0)
      const layer = await firstGeneration(c, say)
      const { ports } = await labSettings()
      // an image that was made elsewhere decides the disk's size
      const disk = await diskSize(layer)
      const vm = await recordVm(c.host, (slot) => ({
        ...newVm(c, layer, old, slot, ports.ssh),
        disk,
      }))
      if (c.size.disk !== undefined && vm.disk !== c.size.disk) {
        c.notes.push(
          `the disk of \`${c.host}\` has ${gib(vm.disk)}, the size of its image: \`--disk\` and LAB_DISK have no effect on an image that LAB_NIXOS_IMAGE names`,
        )
      }
      await ensureIdentity(vm)
      await createDisk(vm, c.ground.firmware)
    },
  },
  {
    title: 'start',
    skip: ({ host, fresh }) => !fresh && isRunning(host) && 'it runs already',
    would: async ({ host, openUplink }) => [
      ...(openUplink ? ["open its uplink to the world, and to this machine's own services"] : []),
      `start QEMU with SSH on 127.0.0.1:${readVm(host)?.port ?? `${await preferredPort(freeSlot(host))}, or the next free port`}`,
      'start the keeper that starts it again after a reboot',
      'write the ssh_config of the lab',
    ],
    run: async (c) => {
      c.changed = true
      const vm = await checkedVm(c)
      await start(vm, c.ground)
      c.started = true
      ensureKeeper(vm)
      writeSshConfigOfAll()
      return `SSH on 127.0.0.1:${readVm(c.host)!.port}`
    },
  },
  {
    title: 'wait for SSH',
    would: ({ host }) => [`log in to ${host} with the lab's key and the pinned host key`],
    run: async (c, say) => {
      ensureKeeper(theVm(c.host))
      if (!c.started && (await goOn(theVm(c.host)))) say('it was paused, and now continues')
      const ssh = await waitForGuest(
        theVm(c.host),
        c.started,
        (c.ground.guest.kind === 'nixos' ? 180 : 60) * c.ground.accelerator.patience,
        say,
      )
      const running = await runningToplevel(ssh)
      await ssh.close()
      if (running !== c.built!.toplevel) await catchUp(c, running, say)
      writeVm({ ...theVm(c.host), toplevel: c.built!.toplevel })
    },
  },
  {
    title: 'subscribe',
    skip: ({ host, fresh }) => {
      if (fresh || !readVm(host)?.subscribed) return false
      // a killed run of scenarios may have left the VM with the run's own remotes
      serveLab(host)
      return 'it has its clones'
    },
    would: ({ host }) => [
      `make ${labRemotes()}, the lab's own remotes, unless they exist`,
      `clone them in ${host}: the flake where it upgrades from, the dotfiles where chezmoi looks`,
    ],
    run: async (c, say) => {
      // a flake that cannot be published must not keep its VM from being deployed
      const why = await ensureRemotes().catch(onFailure(({ message }) => message))
      if (why) return { skipped: why }
      c.changed = true
      const limit = 60 * c.ground.accelerator.patience
      const cloned = (): Promise<void> => subscribe(theVm(c.host), c.built!, limit)
      await counting('clone the flake and the dotfiles', limit, say, cloned)
      writeVm({ ...theVm(c.host), subscribed: true })
    },
  },
  {
    title: 'settle',
    skip: ({ host, fresh }) =>
      !fresh && readVm(host)?.settled === true && 'everything is on its disk already',
    would: ({ host }) => [
      `wait until the first boot of ${host} is over and its services answer`,
      'sync',
    ],
    run: async (c, say) => {
      await settle(theVm(c.host), c.built!, c.ground.accelerator.patience, say)
      writeVm({ ...theVm(c.host), settled: true })
    },
  },
]

/** Switches a VM that runs another generation to the built one, and keeps its disk. */
async function catchUp(c: Deployment, running: string, say: (line: string) => void): Promise<void> {
  c.changed = true
  writeVm({ ...theVm(c.host), settled: false })
  say(`it runs ${running}: switch`)
  const now = await connected(sshTarget(theVm(c.host), 'root'), async (root) => {
    await switchTo(root, c.built!, c.ground.store, c.ground.accelerator.patience, say)
    return runningToplevel(root)
  })
  if (now === c.built!.toplevel) return
  throw new Failure(`Cannot bring \`${c.host}\` to ${c.built!.toplevel}: it runs ${now}`, {
    exit: 1,
  })
}

/** Starts QEMU; retries with the next free port when its port was taken after the check. */
async function start(vm: Vm, ground: Ground): Promise<void> {
  const taken = portsOfOthers(vm)
  for (let tries = 3; ; tries--) {
    if (taken.has(vm.port) || !(await isFree(vm.port))) vm.port = await freePort(vm.slot, taken)
    writeVm(vm)
    try {
      await startQemu(vm, qemuArgs(vm, ground.accelerator.kind, ground.firmware))
      return
    } catch (error) {
      if (tries === 0 || !/forwarding rule/.test((error as Error).message)) throw error
      taken.add(vm.port)
    }
  }
}

/** The VM with the requested memory and CPUs. @throws Failure when its disk or the image below is damaged or gone */
async function checkedVm(c: Deployment): Promise<Vm> {
  const there = theVm(c.host)
  const vm = { ...there, ...c.size, disk: there.disk, openUplink: c.openUplink }
  if (!existsSync(vm.layer)) {
    throw new Failure(
      `Cannot start \`${c.host}\`: the image below its disk is gone: \`${vm.layer}\``,
      {
        hint: `just deploy-test-vm ${c.host} --fresh makes a new disk`,
      },
    )
  }
  await checkDisk(files(c.host).disk)
  await ensureIdentity(vm)
  return vm
}

function newVm(
  c: Deployment,
  layer: string,
  old: Vm | undefined,
  slot: number,
  firstPort: number,
): Vm {
  return {
    host: c.host,
    uuid: old?.uuid ?? newUuid(),
    slot,
    guest: c.ground.guest.kind,
    port: old?.port ?? firstPort - 1 + slot,
    memory: 2 * 1024 ** 3,
    cpus: c.ground.accelerator.cpus,
    disk: 20 * 1024 ** 3,
    ...c.size,
    disko: c.disko,
    openUplink: c.openUplink,
    user: c.built!.facts.primaryUser,
    toplevel: c.built!.toplevel,
    layer,
  }
}

const memoryOf = ({ host, size }: Deployment): number =>
  size.memory ?? readVm(host)?.memory ?? 2 * 1024 ** 3
