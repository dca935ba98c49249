import { spawn, spawnSync } from 'node:child_process'
import { Exit, Failure, type ExitCode } from '../lib/failure.ts'
import { unknown } from '../lib/nearest.ts'
import { lastLines } from '../lib/run.ts'
import { quote } from '../lib/quote.ts'
import { main, type Args } from '../lib/task.ts'
import { runningVm, sshArgs } from '../lib/vm/running.ts'

export const name = 'logs'
export const describe = "Read a VM's journal, of one unit or of all"
export const usage = '<host> [unit]'
export const positionals = {
  host: { describe: 'VM, by name' },
  unit: { describe: 'Unit, with or without .service; default: all' },
}
export const options = {
  lines: {
    type: 'number',
    least: 1,
    most: 1_000_000,
    default: 200,
    describe: 'How many of the last lines to show',
  },
  boot: {
    type: 'number',
    least: -1000,
    most: 1000,
    default: 0,
    describe: 'Which boot: 0 is the current one, -1 the one before',
  },
  follow: { type: 'boolean', alias: 'f', describe: 'Follow the journal, until Ctrl-C' },
  json: { type: 'boolean', describe: 'Print data: one JSON object per line' },
} as const
export const under = ['ssh -F <LAB_HOME>/ssh_config <host>-root journalctl --boot 0 --unit <unit>']
export const examples: [string, string][] = [
  ['just logs sorrow', 'The end of the journal'],
  ['just logs sorrow nix-local-upgrade --follow', 'An upgrade, live'],
  ['just logs sorrow --boot -1', 'The end of the journal of the previous boot'],
]

export async function run(args: Args): Promise<ExitCode> {
  const { lines, boot, unit } = args
  const { host } = runningVm(args['host'], 'read the journal of')
  if (unit !== undefined) requireUnit(host, unit)
  const words = [
    ...['journalctl', '--no-pager', '--boot', String(boot), '--lines', String(lines)],
    ...(unit === undefined ? [] : ['--unit', quote(unit)]),
    ...(args['follow'] ? ['--follow'] : []),
    ...(args['json'] ? ['--output', 'json'] : []),
  ]
  // Ctrl-C is the normal end of `--follow`, not a failure
  let ending = false
  process.on('SIGINT', () => (ending = true))
  const status = await shown(host, words)
  if (status === 0 || ending) return Exit.held
  throw noAnswer(host, `it exited with ${status}`)
}

/** Runs a command and pipes its output through here: ssh itself would fail if its reader is gone (`| head`). */
function shown(host: string, words: string[]): Promise<number | string | null> {
  const ssh = spawn('setpriv', ['--pdeathsig', 'TERM', 'ssh', ...onHost(host, words)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  ssh.stdout.pipe(process.stdout, { end: false })
  return new Promise((resolve, reject) => {
    ssh.on('error', reject).on('close', (code, signal) => resolve(code ?? signal))
  })
}

/** @throws Failure (usage) with the nearest units if neither systemd nor the journal knows the unit */
function requireUnit(host: string, unit: string): void {
  const of = quote(unit)
  const ask = `[ "$(systemctl show --value --property LoadState -- ${of})" != not-found ] ||
    [ -n "$(journalctl --quiet --lines 1 --unit ${of})" ] ||
    { systemctl list-units --all --plain --no-legend; systemctl list-unit-files --plain --no-legend; }`
  const { status, stdout, stderr } = spawnSync('ssh', onHost(host, [ask]), {
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 2 ** 24,
  })
  if (status !== 0)
    throw noAnswer(host, lastLines(stderr.toString(), 1) || `ssh exited with ${status}`)
  const units = stdout
    .toString()
    .split('\n')
    .flatMap((line) => line.split(' ', 1))
    .filter(Boolean)
  if (units.length === 0) return
  const known = units.map((one) => one.replace(/\.service$/, ''))
  const lists = `just ssh-test-vm ${host} systemctl list-units lists all`
  throw unknown(`a unit of \`${host}\`:`, unit.replace(/\.service$/, ''), known, lists)
}

const onHost = (host: string, words: string[]): string[] => [...sshArgs(), `${host}-root`, ...words]

const noAnswer = (host: string, why: string): Failure =>
  new Failure(`Cannot read the journal of \`${host}\`: ${why}`, {
    hint: `just console-test-vm ${host} --log shows what it said on its console, just screenshot ${host} its screen`,
  })

await main(import.meta, {
  ...{ name, describe, usage, positionals, options, under, examples, run },
  ownSignals: true,
  endsWithReader: true,
})
