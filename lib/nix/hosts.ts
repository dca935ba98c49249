import { Failure, usage } from '../failure.ts'
import { hostName } from '../host-name.ts'
import { suggest } from '../nearest.ts'
import { guestStore } from './guest.ts'
import { evaluate, withoutHosts } from './nix.ts'
import { labFlake } from '../settings.ts'
import { theVm, type Vm, knownVms } from '../vm/vm.ts'

/**
 * The hosts that a task works on: those named, else those of `LAB_HOSTS` (separated by blanks or commas), else all
 * hosts that the flake offers to the lab.
 * @param dryRun do not write to the flake, even where its lock file lacks an input
 * @throws Failure (usage) for an invalid name, or one that the flake does not have
 */
export async function chooseHosts(
  named: string[] | undefined,
  attribute: string,
  dryRun = false,
): Promise<string[]> {
  const wanted = [...new Set((named ?? []).map(hostName))]
  const listed = process.env['LAB_HOSTS']
    ?.split(/[\s,]+/)
    .filter(Boolean)
    .map(hostName)
  const offered = await evaluate<string[]>(
    labFlake(),
    attribute,
    'builtins.attrNames',
    guestStore(),
    { readOnly: dryRun },
  )
  const chosen = wanted.length > 0 ? wanted : (listed ?? [])
  const missing = chosen.find((host) => !offered.includes(host))
  if (missing !== undefined) {
    const from = wanted.length > 0 ? '' : ' of LAB_HOSTS'
    throw usage(
      `Cannot find host \`${missing}\`${from} in ${attribute} of \`${labFlake()}\``,
      `${suggest(missing, offered)}a new one: just scaffold-host ${missing} && just add-to-flake ${missing}`,
    )
  }
  if (offered.length === 0) throw withoutHosts(labFlake(), attribute, `has none in ${attribute}`)
  return chosen.length > 0 ? chosen : offered.map(hostName)
}

/** The VMs that a task works on: those named, else all existing ones. */
export const chooseVms = (named: string[] | undefined): Vm[] =>
  (named?.length ? [...new Set(named.map(hostName))] : knownVms()).map(theVm)

/** The same, for a task that needs at least one VM. @throws Failure where there is none */
export function someVms(named: string[] | undefined): Vm[] {
  const vms = chooseVms(named)
  if (vms.length > 0) return vms
  throw new Failure('Cannot find any VM', { hint: 'just lab makes two' })
}
