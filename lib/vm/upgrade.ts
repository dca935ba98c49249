import { usage } from '../failure.ts'
import { labSettings } from '../lab-settings.ts'
import type { Exec } from '../ssh/commands.ts'
import type { Ssh } from '../ssh/ssh.ts'
import { quote } from '../quote.ts'

/** How an upgrade ended, as the guest itself says. */
export interface Ended extends Booted {
  /** The agent's own word, such as `upgraded`; systemd's result of the unit where the agent has none. */
  outcome: string
  reason: string
  /** Whether the agent said that it holds, or the unit ended well. */
  held: boolean
}

/** What a guest is made of, and what boots next. */
export interface Booted {
  /** Number and store path of the system profile. */
  generation: string
  toplevel: string
  /** What the golden generation makes of it; empty on a host without one. */
  golden: string
  /** Of the last generation that failed its trial boot: what it was and why. */
  lastFailed: string
}

/** Shell that starts a unit. systemd refuses the sixth start within 10 s, which a fast machine comes to. */
export const startAgain = (unit: string): string =>
  `systemctl reset-failed ${unit} 2>/dev/null; systemctl start ${unit}`

/**
 * Shell that starts a unit and waits until it is over. A switch to another systemd has that take the place of the
 * one that runs: `systemctl start` is cut off then, and the upgrade goes on.
 */
export const startToEnd = (unit: string): string => `${startAgain(unit)} || until
      systemctl show --property=ActiveState ${unit} | grep -qE '=(active|inactive|failed)$'
    do sleep 1; done`

const statusFile = '/var/lib/nix-local-upgrade/status.json'
const separator = '\u001e'

/**
 * Starts the upgrade unit of a guest, or joins the one that is at work, and waits until it has ended.
 * @param root a connection as root
 * @param limit seconds
 * @param told each line that the unit says
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
      'Cannot start an upgrade by comin: it asks remotes of its own, which a VM does not reach',
      'just gitops-test gives it the remote of the lab',
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
    // systemd says of its own when it starts and ends a unit
    if (!over && line.trim() && !/^(Starting|Finished|Started) |\.service: /.test(line))
      told(line.trim())
  }
  const { stdout } = await root.exec(script, {
    timeout: limit,
    onLine,
    hint: `lab.toml names the unit that upgrades a host, \`${unit}\` now`,
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

/** What a generation is to the boot loader, by `show-boot-status --json`. */
function goldenOf(boot: { golden: string; trial: string } | undefined, toplevel: string): string {
  if (!boot) return ''
  if (boot.golden === toplevel) return 'golden'
  return boot.trial === toplevel ? 'on trial at the next boot' : 'not golden'
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as JSON.parse, it is told what to expect
function parse<T>(text: string): T | undefined {
  try {
    return text.trim() ? (JSON.parse(text) as T) : undefined
  } catch {
    return undefined
  }
}
