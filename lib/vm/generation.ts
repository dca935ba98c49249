import { Failure } from '../failure.ts'
import { within } from '../retry.ts'
import { guestAgent, programPath } from './guest-agent.ts'
import { files, type Vm } from './vm.ts'

/** The generation that a guest runs. */
export interface Generation {
  toplevel: string
  /** Its number in the system profile, the highest if it has several. */
  number?: number
  /** The commit that it was deployed from; undefined when it was built from a working tree. */
  commit?: string
  golden: boolean
  /** `running`: this boot is its trial. `next`: another generation is on trial at the next boot. */
  trial?: 'running' | 'next'
}

/**
 * Uses bash builtins for all but `readlink` and `nixos-version`: in an emulated guest each program takes a tenth of
 * a second. Prints one line each: the running toplevel, the golden one, the one on trial, the boot in which that
 * trial was armed, this boot, the line that records the last upgrade (its commit and toplevel), the configuration
 * revision, then each link of the system profile that leads to the running toplevel.
 */
const script = `exec 2>/dev/null
toplevel=$(readlink -f /run/current-system)
state=/var/lib/golden-generation
field() { text=; [[ ! -r $1 ]] || text=$(<"$1"); if [[ $text =~ \\"$2\\":\\"([^\\"]*)\\" ]]; then echo "\${BASH_REMATCH[1]}"; else echo; fi; }
echo "$toplevel"
field $state/golden.json toplevel
field $state/trial.json toplevel
field $state/trial.json boot
read -r boot </proc/sys/kernel/random/boot_id && echo "$boot"
line=; [[ ! -r /var/lib/nix-local-upgrade/deployed ]] || read -r line </var/lib/nix-local-upgrade/deployed
echo "$line"
if [[ -x /run/current-system/sw/bin/nixos-version ]]; then echo "$(nixos-version --configuration-revision)"; else echo; fi
for link in /nix/var/nix/profiles/system-*-link; do [[ ! $link -ef $toplevel ]] || echo "$link"; done`

/**
 * The generation that a guest runs. Asks its agent, which needs no network.
 * @param limit seconds for everything, even with a guest that is frozen or still boots
 * @throws Failure when it does not answer in time
 */
export async function generationOf(vm: Vm, limit: number): Promise<Generation> {
  let client: Awaited<ReturnType<typeof guestAgent>> | undefined
  let late = false
  const ask = async (): Promise<Generation> => {
    const agent = await guestAgent(files(vm.host).agent, { name: vm.host, timeout: limit })
    client = agent
    if (late) agent.close()
    const { stdout } = await agent.exec('/bin/sh', ['-c', `${programPath}; exec bash -s`], {
      input: script,
      timeout: limit,
    })
    return readGeneration(stdout)
  }
  const silent = () => new Failure(`\`${vm.host}\` does not answer within ${limit} s`)
  return within(ask(), limit, silent).finally(() => {
    late = true
    client?.close()
  })
}

/** Reads the output of the script. */
export function readGeneration(printed: string): Generation {
  const [toplevel = '', golden, trial, armedIn, boot, deployed = '', revision, ...links] =
    printed.split('\n')
  const [commit, , of] = deployed.split(' ')
  const numbers = links.flatMap((link) => /system-(\d+)-link$/.exec(link)?.[1] ?? []).map(Number)
  const tried = trial !== '' && armedIn !== boot
  return {
    toplevel,
    ...(numbers.length > 0 && { number: Math.max(...numbers) }),
    ...(of === toplevel && commit ? { commit } : revision ? { commit: revision } : {}),
    golden: toplevel !== '' && toplevel === golden,
    ...(trial && trial === toplevel && tried && { trial: 'running' as const }),
    ...(trial && !tried && { trial: 'next' as const }),
  }
}
