import { createServer } from 'node:net'
import { Failure } from '../failure.ts'
import { labSettings } from '../lab-settings.ts'
import { writeSshConfigOfAll } from './identity.ts'
import { knownVms, qemuOf, theVm, writeVm, type Vm } from './vm.ts'

/** The port for the VM of a slot, if it is free: 2222 for slot 1, unless the settings say otherwise. */
export const preferredPort = async (slot: number): Promise<number> =>
  (await labSettings()).ports.ssh - 1 + slot

/**
 * The first free port on 127.0.0.1 from the preferred one on.
 * Ports in `taken` are skipped, as they belong to VMs that are off and will need them again.
 */
export async function freePort(slot: number, taken: Set<number>): Promise<number> {
  const preferred = await preferredPort(slot)
  for (let port = preferred; port < preferred + 400; port++) {
    if (!taken.has(port) && (await isFree(port))) return port
  }
  throw new Failure(`Cannot find a free port from ${preferred} on`)
}

export const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () =>
      server.close(() => resolve(true)),
    )
  })

/** Ports of the other VMs; those that are off will need them again. */
export const portsOfOthers = (vm: Vm): Set<number> =>
  new Set(
    knownVms()
      .filter((host) => host !== vm.host)
      .map((host) => theVm(host).port),
  )

/** Gives a VM that is off another port when something has taken its own. */
export async function withFreePort(vm: Vm): Promise<Vm> {
  if (qemuOf(vm) || (await isFree(vm.port))) return vm
  const moved = { ...vm, port: await freePort(vm.slot, portsOfOthers(vm)) }
  writeVm(moved)
  writeSshConfigOfAll()
  return moved
}
