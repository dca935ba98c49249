import { existsSync } from 'node:fs'
import { createDisk } from './disk.ts'
import { Failure } from '../failure.ts'
import { baseImage, preflight, type Ground } from './ground.ts'
import { chooseGuest, guestStore } from '../nix/guest.ts'
import { buildHosts, readHost, type Host } from '../nix/host.ts'
import { ensureIdentity, ensureLabKey, sshTarget, writeSshConfigOfAll } from './identity.ts'
import { checkDisk } from '../image/qcow2.ts'
import { labSettings } from '../lab-settings.ts'
import type { Lock } from '../lock.ts'
import { requireMemory, requireSpace } from './preflight.ts'
import {
  ensureKeeper,
  freePort,
  isFree,
  qemuArgs,
  startQemu,
  stopVm,
  waitForGuest,
} from './qemu.ts'
import { labCache, labHome } from '../settings.ts'
import { connect } from '../ssh/ssh.ts'
import { runLanes, type Lane, type Step } from '../steps.ts'
import { runningToplevel, switchTo } from './switch.ts'
import {
  files,
  freeSlot,
  knownVms,
  lockVm,
  newUuid,
  qemuOf,
  readVm,
  theVm,
  writeVm,
  type Vm,
} from './vm.ts'

/** What becomes known of one VM on its way. */
export interface Deployment {
  host: string
  size: Partial<Pick<Vm, 'disk' | 'memory' | 'cpus'>>
  fresh: boolean
  ground: Ground
  built?: Host
  /** Whether anything was made, started or switched. */
  changed: boolean
  /** Whether QEMU was started just now. */
  started: boolean
}

export const deployment = (
  host: string,
  size: Deployment['size'] = {},
  fresh = false,
): Deployment => ({
  host,
  size,
  fresh,
  ground: {} as Ground,
  changed: false,
  started: false,
})

/**
 * Deploys VMs side by side. Each one's lock is taken first, so that a second deploy of the same VM
 * fails at once and names this one.
 */
export async function deploy(deployments: Deployment[], quiet = false): Promise<void> {
  const locks: Lock[] = []
  try {
    for (const { host } of deployments) locks.push(await lockVm(host, 'deploy'))
    await runLanes([groundLane(deployments)], quiet)
    await runLanes(deployments.map(lane), quiet)
  } finally {
    for (const held of locks) held.release()
  }
}

export const groundLane = (deployments: Deployment[]): Lane<Deployment> => ({
  title: 'lab',
  context: deployments[0]!,
  steps: [
    {
      title: 'preflight',
      would: () => [
        'look for tools, firmware, memory and disk space',
        'boot a probe guest under KVM, once per boot of this machine',
      ],
      run: async (_, say) => {
        const found = await preflight()
        const asleep = deployments.filter(({ host }) => !isRunning(host))
        requireMemory(asleep.reduce((sum, each) => sum + memoryOf(each), 0))
        requireSpace(labHome(), 1024 ** 3, 'make the disks of the VMs')
        await ensureLabKey()
        say(
          `${found.accelerator.kind}: ${found.accelerator.reason}; guest ${found.guest.kind}: ${found.guest.reason}`,
        )
        for (const each of deployments) Object.assign(each.ground, found)
      },
    },
    {
      title: 'evaluate',
      would: () => [
        'evaluate every host, so that a mistake in the flake is said before anything is made',
      ],
      run: async () => {
        const { attribute } = chooseGuest()
        const read = ({ host }: Deployment): Promise<Host> =>
          readHost(host, attribute, guestStore())
        await Promise.all(deployments.map(async (each) => void (each.built = await read(each))))
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
      // the embedded guest's derivations belong into its image's store, which may be newer than the first look
      if (!c.built || c.ground.guest.kind === 'debian') {
        c.built = await readHost(c.host, c.ground.guest.attribute, c.ground.store)
      }
      await buildHosts([c.built], c.ground.store, say)
    },
  },
  {
    title: 'disk and identity',
    skip: ({ host, fresh }) => !fresh && hasDisk(host) && 'it has its disk',
    would: ({ host, fresh }) => [
      ...(fresh ? [`cut the power of ${host} and delete ${files(host).disk}`] : []),
      ...(chooseGuest().kind === 'nixos'
        ? [`run disko's image builder for ${host}, unless its image is cached`]
        : []),
      `create ${files(host).disk}, an overlay on generation 1 of ${host}`,
      `create ${files(host).vars} and ${files(host).hostKey}`,
    ],
    run: async (c, say) => {
      c.changed = true
      const old = readVm(c.host)
      if (old) await stopVm(old, 0)
      const layer = await firstGeneration(c, say)
      const { ports } = await labSettings()
      const vm = newVm(c, layer, old, ports.ssh)
      writeVm(vm)
      await ensureIdentity(vm)
      await createDisk(vm, c.ground.firmware)
    },
  },
  {
    title: 'start',
    skip: ({ host, fresh }) => !fresh && isRunning(host) && 'it runs already',
    would: ({ host }) => [
      `start QEMU with SSH on 127.0.0.1:${readVm(host)?.port ?? `${2221 + freeSlot(host)}, or the next free port`}`,
      'start the keeper that starts it again after a reboot',
      'write the ssh_config of the lab',
    ],
    run: async (c, say) => {
      c.changed = true
      const vm = await checkedVm(c)
      await start(vm, c.ground)
      c.started = true
      ensureKeeper(vm)
      writeSshConfigOfAll()
      say(`SSH on 127.0.0.1:${readVm(c.host)!.port}`)
    },
  },
  {
    title: 'wait for SSH',
    would: ({ host }) => [`log in to ${host} with the lab's key and the pinned host key`],
    run: async (c, say) => {
      ensureKeeper(theVm(c.host))
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
]

/** The image with the host's first generation, which the VM's own disk is an overlay on. */
async function firstGeneration(
  { ground, built, host, size }: Deployment,
  say: (line: string) => void,
): Promise<string> {
  const disk = size.disk ?? 20 * 1024 ** 3
  const { base, store, accelerator } = ground
  if (base) {
    const { ensureHostLayer } = await import('../image/layer.ts')
    return ensureHostLayer(base, { ...built!, host, size: disk, store })
  }
  const { ensureNixosImage } = await import('../image/nixos.ts')
  const wanted = { size: disk, emulated: accelerator.kind === 'tcg' }
  return ensureNixosImage(host, wanted, 3600 * accelerator.patience, say)
}

/** @throws Failure when the VM that is there was made as the other guest */
function sameGuest({ host, fresh, ground }: Deployment): void {
  const made = hasDisk(host) && !fresh ? readVm(host)!.guest : ground.guest.kind
  if (made === ground.guest.kind) return
  throw new Failure(
    `Cannot bring \`${host}\` up as a \`${ground.guest.kind}\` guest: it was made as \`${made}\``,
    { hint: `LAB_GUEST=${made}, or --fresh, which makes a new disk` },
  )
}

/** A VM that has a disk, but not the built generation: the disk is kept and the host rebuilt. */
async function catchUp(c: Deployment, running: string, say: (line: string) => void): Promise<void> {
  c.changed = true
  say(`it runs ${running}: switch`)
  const root = await connect(sshTarget(theVm(c.host), 'root'))
  await switchTo(root, c.built!, c.ground.store, c.ground.accelerator.patience, say)
  const now = await runningToplevel(root)
  await root.close()
  if (now === c.built!.toplevel) return
  throw new Failure(`Cannot bring \`${c.host}\` to ${c.built!.toplevel}: it runs ${now}`, {
    exit: 1,
  })
}

/** Starts QEMU; a port that was taken since it was looked at means the next free one. */
async function start(vm: Vm, ground: Ground): Promise<void> {
  const others = knownVms().filter((host) => host !== vm.host)
  const taken = new Set(others.map((host) => theVm(host).port))
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

/** The VM with the size that was asked for, if its disk and what it stands on are whole. */
async function checkedVm(c: Deployment): Promise<Vm> {
  const vm = { ...theVm(c.host), ...c.size }
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

function newVm(c: Deployment, layer: string, old: Vm | undefined, firstPort: number): Vm {
  const slot = old?.slot ?? freeSlot(c.host)
  return {
    host: c.host,
    uuid: old?.uuid ?? newUuid(),
    slot,
    guest: c.ground.guest.kind,
    port: old?.port ?? firstPort - 1 + slot,
    memory: 2 * 1024 ** 3,
    cpus: 2,
    disk: 20 * 1024 ** 3,
    ...c.size,
    user: c.built!.facts.primaryUser,
    toplevel: c.built!.toplevel,
    layer,
  }
}

const memoryOf = ({ host, size }: Deployment): number =>
  size.memory ?? readVm(host)?.memory ?? 2 * 1024 ** 3

const isRunning = (host: string): boolean => {
  const vm = readVm(host)
  return vm !== undefined && qemuOf(vm) !== undefined
}

const hasDisk = (host: string): boolean =>
  readVm(host) !== undefined && existsSync(files(host).disk) && existsSync(files(host).vars)
