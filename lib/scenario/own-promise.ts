import { readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Failure } from '../failure.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'
import { quote } from '../quote.ts'
import type { Weather } from '../fault/case.ts'
import type { Ends, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import type { Promised } from './promise.ts'
import { git, type Changes } from './remote.ts'
import { unreachedUpgrade } from './upgrade.ts'
import type { Upgraded } from './upgrade-unit.ts'
import type { World } from './world.ts'

/** A promise of the user's own, from a `[[promise]]` in `lab.toml`. */
export interface OwnPromise {
  name: string
  title: string
  about: Promised
  /** Makes the change to commit: a shell command, run in a clone of the flake, or a patch beside `lab.toml`. */
  shell?: string
  patch?: string
  /** Fault on uplink during an upgrade; it is then healed, and the host upgrades again. */
  fault?: Weather
  reboot: boolean
  /** Commands that must succeed (`holds`) or fail (`fails`), run in the guest as root. */
  holds: string[]
  fails: string[]
  /** Seconds on KVM that each of them has for it. */
  within: number
  ends: Ends
}

/** Runs a promise of the user's own: commits its change, upgrades, and checks its commands in the guest. */
export async function keepsPromise(scene: Scene, one: OwnPromise, flake: string): Promise<void> {
  const { vm, world } = scene
  const commits = one.shell !== undefined || one.patch !== undefined
  if (commits) {
    const changes = await changesOf(world, one, flake, vm.host)
    await world.config.commit(changes, one.title)
  }
  const ended: Ended[] = []
  if (one.fault) {
    const { begin } = await import('../fault/case.ts')
    const end = await begin(scene, [vm], one.fault)
    ended.push(await upgraded(scene, vm))
    await end()
  }
  ended.push(await upgraded(scene, vm))
  if (commits && (one.ends === 'start' || one.ends === 'golden')) judgeEnds(scene, one, ended)
  if (one.reboot) scene.event(`${vm.host} rebooted`, { seconds: await vm.reboot({ limit: 150 }) })
  for (const command of one.holds) await asked(scene, vm, command, one.within, true)
  for (const command of one.fails) await asked(scene, vm, command, one.within, false)
}

type Ended = Pick<Upgraded, 'status' | 'result'>

/**
 * Outcomes that keep each promise when the upgrade's commit does not run in the end. With any other outcome, such as
 * `offline`, the same system runs, but the promise was not kept.
 */
const endings: Partial<Record<Promised, RegExp>> = {
  deploy: /^((build|switch|validation)-failed|conflict|diverged)$/,
  refuse: /^build-failed$/,
  rollback: /^(switch|validation)-failed$/,
  reach: /^(switch|validation)-failed$/,
  checks: /^(switch|validation)-failed$/,
  fallback: /^upgraded$/,
  history: /^diverged$/,
  space: /^no-space$/,
}

/** Checks that one of the upgrades ended as the promise requires; others, such as one amid a fault, need not. */
function judgeEnds({ vm, check }: Scene, { about }: OwnPromise, ended: Ended[]): void {
  const wanted = endings[about]
  if (!wanted) return
  const words = vm.subject.status !== undefined
  // a subject without a status shows it by the result of its unit
  const silent = about === 'fallback' ? /^success$/ : /^(?!success$)./
  const expected = words ? wanted : silent
  const found = ended.map(({ status, result }) => (words ? status?.outcome : result) ?? undefined)
  const hit = found.find((end) => end !== undefined && expected.test(end))
  check(
    `${vm.host}'s upgrade: ${words ? 'outcome' : 'the unit ends'}`,
    expected,
    hit ?? found.at(-1),
  )
}

async function upgraded(scene: Scene, vm: Machine): Promise<Ended> {
  const ended = await vm.spend('upgrades', () => unreachedUpgrade(vm))
  const { status } = ended
  if (status) scene.event(`the upgrade says ${status.outcome}: ${status.reason}`)
  scene.check(`${vm.host}'s upgrade: ends in its time`, 'ended', 'ended')
  return ended
}

/** Bash calls this for a missing program. It writes to fd 3, which a redirection in the command leaves alone. */
const notFound = 'command_not_found_handle() { echo "the shell finds no $1" >&3; return 127; }'

/**
 * Shell that exits with 0 as soon as a command succeeds (or fails), and prints its last lines. A command that the
 * shell cannot run in full, such as a misspelt one, does not count as failed.
 */
export function untilSo(command: string, limit: number, holds: boolean): string {
  const loop = holds
    ? `until (\n${command}\n); do sleep 1; done`
    : `${notFound}
while said=$(exec 3>&1 2>&1\n${command}\n); code=$?; do
  case "$code $said" in *"the shell finds no "*) echo "$said"; exit 1 ;; "0 "*) sleep 1 ;; 12[67]" "*) echo "\${said:-the shell cannot run it}"; exit 1 ;; *) exit 0 ;; esac
done`
  // only bash calls a function for a missing program; the message of other shells can be redirected away
  const shell = holds ? 'sh' : 'bash --posix'
  return `said=$(timeout ${limit} ${shell} -c ${quote(loop)} 2>&1); code=$?; printf '%s' "$said" | tail -n 3; exit $code`
}

/** Runs a command through the guest agent, which needs no network and no login. */
async function asked(
  scene: Scene,
  vm: Machine,
  command: string,
  within: number,
  holds: boolean,
): Promise<void> {
  const limit = Math.ceil(within * vm.patience)
  const { code, stdout } = await vm.agent(untilSo(command, limit, holds), {
    limit: within + 30,
    allow: 'any',
  })
  const wanted = holds ? 'succeeds' : 'fails'
  const not = `not within ${limit} s${stdout.trim() ? `: ${stdout.trim()}` : ''}`
  scene.check(
    `\`${command}\` ${wanted}`,
    `within ${limit} s`,
    code === 0 ? `within ${limit} s` : not,
  )
}

/**
 * The changes that a command or a patch makes to the flake, in a clone of the repository that the hosts upgrade from.
 * @throws Failure when it fails, or changes nothing, or makes a file that is not text
 */
export async function changesOf(
  world: Pick<World, 'config' | 'branch'>,
  one: Pick<OwnPromise, 'name' | 'shell' | 'patch'>,
  flake: string,
  host: string,
): Promise<Changes> {
  const scratch = scratchDirectory('promise')
  const clone = join(scratch, 'clone')
  const inClone = (...args: string[]): Promise<string> => git(['-C', clone, ...args])
  try {
    await git(['clone', '--quiet', '--branch', world.branch, world.config.dir, clone])
    const [program = '', ...args] =
      one.shell !== undefined
        ? ['sh', '-euc', one.shell]
        : ['git', 'apply', resolve(flake, one.patch!)]
    await run(program, args, { cwd: clone, env: { HOST: host } }).catch((cause: Failure) => {
      throw new Failure(`Cannot make the commit of \`${one.name}\`: ${cause.message}`, {
        cause,
        evidence: cause.detail.evidence,
      })
    })
    await inClone('add', '--all')
    const listed = await inClone('diff', '--cached', '--name-only', '--no-renames', '-z', 'HEAD')
    const paths = listed.split('\0').filter(Boolean)
    if (paths.length === 0) {
      throw new Failure(`Cannot make the commit of \`${one.name}\`: it changes nothing`)
    }
    const kept = new Set((await inClone('ls-files', '-z')).split('\0'))
    return Object.fromEntries(
      paths.map((path) => [path, kept.has(path) ? textOf(join(clone, path), path) : null]),
    )
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

function textOf(file: string, path: string): string {
  try {
    return new TextDecoder('utf8', { fatal: true }).decode(readFileSync(file))
  } catch (cause) {
    throw new Failure(`Cannot commit \`${path}\`: it is not text`, { cause })
  }
}
