import { usage } from '../failure.ts'
import { labSettings } from '../lab-settings.ts'
import type { Exec } from '../ssh/commands.ts'
import type { Ssh } from '../ssh/ssh.ts'
import { quote } from '../quote.ts'

/** How an upgrade ended, as the guest reports it. */
export interface Ended extends Booted {
  /** The upgrade agent's outcome, such as `upgraded`; systemd's result of the unit where the agent reports none. */
  outcome: string
  reason: string
  /** Whether it succeeded: the outcome is `upgraded` or `up-to-date`; without one, the unit's result is `success`. */
  held: boolean
}

/** The system profile of a guest, and its state for the boot loader. */
export interface Booted {
  /** Number and store path of the system profile. */
  generation: string
  toplevel: string
  /** Whether it is golden, on trial, or neither; empty on a host without golden generations. */
  golden: string
  /** The last generation that failed its trial boot, and why. */
  lastFailed: string
}

/** Shell that starts a unit. systemd refuses the sixth start within 10 s, so this resets its counter first. */
export const startAgain = (unit: string): string =>
  `systemctl reset-failed ${unit} 2>/dev/null; systemctl start ${unit}`

/**
 * Shell that starts a unit and waits until it has ended. A switch to another systemd re-executes systemd, which
 * cuts off `systemctl start` while the upgrade continues, so this then polls the unit.
 */
export const startToEnd = (unit: string): string => `${startAgain(unit)} || until
      systemctl show --property=ActiveState ${unit} | grep -qE '=(active|inactive|failed)$'
    do sleep 1; done`

const statusFile = '/var/lib/nix-local-upgrade/status.json'
const separator = '\u001e'

/**
 * Starts the upgrade unit of a guest, or joins an upgrade that is running, and waits until it has ended.
 * @param root a connection as root
 * @param limit seconds
 * @param told called with each line that the unit logs
 * @throws Failure when it takes longer
 */
export async function upgradeNow(
  root: Ssh,
  limit: number,
  told: (line: string) => void,
): Promise<Ended> {
  const { upgrade, units } = await labSettings()
  if (upgrade.kind === 'comin') {
    throw usage(
      'Cannot start an upgrade by comin: it polls its own remotes, which a VM does not reach',
      'just gitops-test makes it poll the remote of the lab',
    )
  }
  const unit = `${units.upgrade}.service`
  const script = `unit=${quote(unit)}
    systemctl cat "$unit" >/dev/null || exit 3
    before=$(stat -c %i.%Y ${statusFile} 2>/dev/null)
    journalctl --follow --lines=0 --output=cat --unit="$unit" & journal=$!
    ${startToEnd('"$unit"')}
    result=$(systemctl show --property=Result --value "$unit")
    sleep 0.3; kill $journal; wait $journal 2>/dev/null
    printf '${separator}\\n%s\\n' "$result"
    ${askBoot}
    printf '${separator}\\n'
    [ "$before" = "$(stat -c %i.%Y ${statusFile} 2>/dev/null)" ] || cat ${statusFile}`
  let over = false
  const onLine = (line: string): void => {
    over ||= line.includes(separator)
    // leaves out systemd's own lines about starting and ending the unit
    if (!over && line.trim() && !/^(Starting|Finished|Started) |\.service: /.test(line))
      told(line.trim())
  }
  const { stdout } = await root.exec(script, {
    timeout: limit,
    onLine,
    hint: `lab.toml names the unit that upgrades a host; it is now \`${unit}\``,
  })
  const [, found = '', status = ''] = stdout.split(`${separator}\n`)
  const [result = '', ...boot] = found.split('\n')
  const own = parse<{ outcome: string | null; reason: string | null }>(status)
  const outcome = own?.outcome ?? result
  return {
    outcome,
    reason: own?.reason ?? '',
    ...readBoot(boot),
    held: own?.outcome ? ['upgraded', 'up-to-date'].includes(outcome) : result === 'success',
  }
}

const askBoot = `readlink /nix/var/nix/profiles/system; readlink -f /nix/var/nix/profiles/system
    ! command -v show-boot-status >/dev/null || show-boot-status --json`

export const bootOf = async (exec: Exec): Promise<Booted> =>
  readBoot((await exec(askBoot)).stdout.split('\n'))

function readBoot([link = '', toplevel = '', boot = '']: string[]): Booted {
  const generation = /\d+/.exec(link)?.[0] ?? ''
  const said = parse<{ golden: string; trial: string; lastFailed: string }>(boot)
  return {
    generation,
    toplevel,
    golden: goldenOf(said, toplevel),
    lastFailed: said?.lastFailed ?? '',
  }
}

/** The state of a generation for the boot loader, from `show-boot-status --json`. */
function goldenOf(boot: { golden: string; trial: string } | undefined, toplevel: string): string {
  if (!boot) return ''
  if (boot.golden === toplevel) return 'golden'
  return boot.trial === toplevel ? 'on trial at the next boot' : 'not golden'
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names the type, as with JSON.parse
function parse<T>(text: string): T | undefined {
  try {
    return text.trim() ? (JSON.parse(text) as T) : undefined
  } catch {
    return undefined
  }
}
