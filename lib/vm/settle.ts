import type { Host } from '../nix/host.ts'
import { counting } from '../retry.ts'
import { probe } from '../ssh/probes.ts'
import { connected } from '../ssh/ssh.ts'
import { checksOf, probesOf } from './checks.ts'
import { sshTarget } from './identity.ts'
import type { Vm } from './vm.ts'

/**
 * Waits until a guest's boot is over and its declared services have answered, because they write their
 * configuration at their first start. Then syncs: after a power cut a file that was not synced would be
 * empty, and stay so.
 *
 * A service that does not answer in time is not an error here; `verify` reports it.
 * @param patience factor of the time limits, for an emulated CPU
 * @throws Failure when the guest cannot be asked, or does not sync in time
 */
export async function settle(
  vm: Vm,
  host: Host,
  patience: number,
  say: (line: string) => void,
): Promise<void> {
  await connected(sshTarget(vm), async (ssh) => {
    const services = checksOf(host).filter(({ name }) => host.facts.declared.includes(name))
    // the first 120 s are for a guest that still boots
    const limit = 120 + 60 * patience
    const what = `first boot and ${services.map(({ name }) => name).join(', ')}`
    await counting(what, limit, say, () => probe(ssh, probesOf(services), limit))
    await counting('sync', limit, say, () => ssh.exec('sync', { timeout: limit }))
  })
}
