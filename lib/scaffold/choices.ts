import { join } from 'node:path'
import { oneLine, usage } from '../failure.ts'
import { newHostName } from '../host-name.ts'
import type { HostChoices } from './shape.ts'
import { nixReader, parts, staticText } from '../flake/syntax.ts'
import { run } from '../run.ts'
import { project } from '../settings.ts'

/** Choices as the user gave them; all services are in one list, whose elements may contain commas. */
export type GivenChoices = Omit<HostChoices, 'cli' | 'networking'> & { services: string[] }

/**
 * The choices, validated: each is checked against what the modules' options accept.
 * @throws Failure (usage) for the first invalid one
 */
export async function hostChoices(given: GivenChoices): Promise<HostChoices> {
  const name = newHostName(given.name)
  const user = matching(
    given.user,
    /^[a-z_][a-z0-9_.-]{0,30}$/,
    'a user name',
    'Write a-z, 0-9, _, hyphen and dot',
  )
  if (user === 'root')
    throw usage('Cannot use `root` as the primary user', 'The primary user is a person who logs in')
  const device = matching(
    given.device,
    /^\/dev\/(?!.*\.\.)[A-Za-z0-9][\w.:+/-]*$/,
    'a block device',
    'Write its path, such as /dev/vda',
  )
  const layout = oneOf(given.layout, await namesIn('disks.nix'), 'disk layout')
  const [cli, networking] = [
    await namesIn('services/cli.nix'),
    await namesIn('services/networking.nix'),
  ]
  const services = given.services
    .flatMap((listed) => listed.split(','))
    .map((service) => oneOf(service.trim(), [...cli, ...networking], 'service'))
  const chosen = (known: string[]): string[] =>
    known.filter((service) => services.includes(service))
  const schedule = await calendar(given.schedule)
  return { name, user, device, layout, cli: chosen(cli), networking: chosen(networking), schedule }
}

function matching(text: string, rule: RegExp, what: string, hint: string): string {
  if (rule.test(text)) return text
  throw usage(`Cannot use \`${oneLine(text)}\` as ${what}`, hint)
}

function oneOf(text: string, known: string[], what: string): string {
  if (known.includes(text)) return text
  throw usage(`Cannot find ${what} \`${oneLine(text)}\``, `There are ${known.join(', ')}`)
}

/** Checks a calendar event with systemd; without systemd here, the host's own will report a wrong one. */
async function calendar(text: string): Promise<string> {
  const plain = matching(
    text,
    /^[\x20-\x7e]+$/,
    'a schedule',
    'Write a calendar event, such as hourly',
  )
  const { code } = await run('systemd-analyze', ['calendar', '--', plain], { allow: [1, 127] })
  if (code !== 1) return plain
  throw usage(
    `Cannot use \`${plain}\` as a schedule`,
    'man systemd.time says what a calendar event is',
  )
}

/**
 * The names that a module's option accepts, read from the first `enum` in its file, so that they are
 * written in one place only.
 * @param module file under `nix/modules`
 */
export async function namesIn(module: string): Promise<string[]> {
  const { root } = (await nixReader())(join(project, 'nix/modules', module))
  const [names] = root
    .descendantsOfType('apply_expression')
    .filter((call) => /(^|\.)enum$/.test(call.childForFieldName('function')?.text ?? ''))
    .map((call) => call.childForFieldName('argument')!)
  return names ? parts(names).flatMap((name) => staticText(name) ?? []) : []
}
