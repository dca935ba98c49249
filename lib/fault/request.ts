import { usage } from '../failure.ts'
import {
  directions,
  kindOf,
  kinds,
  links,
  type Direction,
  type Kind,
  type KindOf,
  type Link,
  type Request,
} from './fault.ts'
import { hostName } from '../host-name.ts'
import type { Option } from '../task.ts'

/** The first words that `chaos-network` takes as a verb; any other names a host. */
export const verbs = [...Object.keys(kinds), 'heal', 'list']

/** Seconds that a flapping cable may stay out, or in. */
const flapped = { least: 1, most: 60 }

/** `readRequest` checks the numbers, as their range depends on the fault, and some faults take none. */
export const faultOptions: Record<string, Option> = {
  link: { type: 'string', describe: `${links.join(' or ')}; mgmt is never faulted` },
  host: {
    type: 'string',
    array: true,
    describe: 'VM; two for a partition; default for heal and list: all',
  },
  for: { type: 'string', describe: 'Lease, after which the fault heals itself; default: 60s' },
  direction: {
    type: 'string',
    describe: `${directions.join(', ')}, as the VM sees it; default: out`,
  },
  ms: { type: 'number', describe: 'delay, jitter' },
  percent: { type: 'number', describe: 'loss, duplicate, corrupt' },
  kbit: { type: 'number', describe: 'rate: kbit per second' },
  down: { type: 'number', describe: 'flap: seconds without the cable; default: 2' },
  up: { type: 'number', describe: 'flap: seconds with the cable; default: 3' },
}

/** One line for each kind, for --help. */
export const faultHelp: string[] = Object.entries(kinds).map(
  ([kind, { describe }]) => `${kind.padEnd(10)} ${describe}`,
)

/** The options of a command line that describe a fault. */
export interface Words {
  link?: string
  host?: string | string[]
  direction?: string
  for?: string
  ms?: number
  percent?: number
  kbit?: number
  down?: number
  up?: number
}

/**
 * Reads a request for a fault from a command line.
 * @throws Failure (usage) naming what is wrong, with what would be right
 */
export function readRequest(kind: string, args: Words): Request {
  if (!Object.hasOwn(kinds, kind)) {
    throw usage(`Cannot inject \`${kind}\`: there is no such fault`, Object.keys(kinds).join(', '))
  }
  const of = kindOf(kind as Kind)
  const numbers = readNumbers(of, kind, args)
  const link = readLink(args.link ?? of.link, kind)
  if (of.link && link !== of.link) {
    throw usage(`Cannot inject ${kind} on ${link}: it is a fault of ${of.link}`)
  }
  const hosts = [...new Set([args.host ?? []].flat().map(hostName))]
  const wanted = kind === 'partition' ? 2 : 1
  if (hosts.length === 0 || (link === 'lan' && hosts.length !== wanted)) {
    throw usage(
      `Cannot inject ${kind} on ${link} of ${hosts.length} VMs`,
      wanted === 2
        ? 'A partition needs two: --host sorrow --host torment'
        : 'Name one with --host sorrow: on lan it is measured against the others',
    )
  }
  return {
    kind: kind as Kind,
    link,
    hosts,
    direction: readDirection(of, kind, args.direction),
    ...numbers,
    lease: seconds(args.for ?? '60s'),
  }
}

function readLink(link: string | undefined, kind: string): Link {
  if (links.includes(link as Link)) return link as Link
  if (link === undefined) throw usage(`Cannot inject ${kind} without --link uplink or --link lan`)
  if (link !== 'mgmt') throw usage(`Cannot inject ${kind} on \`${link}\`: no such link`)
  throw usage('Cannot inject a fault on mgmt: the lab commands its VMs over it', '--link uplink')
}

function readDirection(of: KindOf, kind: string, asked: string | undefined): Direction {
  const direction = (asked ?? of.directions?.[0] ?? 'both') as Direction
  if (asked === undefined || of.directions?.includes(direction)) return direction
  throw usage(
    `Cannot inject ${kind} with the direction \`${asked}\``,
    of.directions ? `It has ${of.directions.join(', ')}` : 'It has none to choose',
  )
}

function readNumbers(
  { unit }: KindOf,
  kind: string,
  args: Words,
): Pick<Request, 'value' | 'down' | 'up'> {
  const units = ['ms', 'percent', 'kbit', 'down', 'up'] as const
  const own: string[] = kind === 'flap' ? ['down', 'up'] : unit ? [unit.option] : []
  const extra = units.find((option) => args[option] !== undefined && !own.includes(option))
  if (extra) {
    const hint = own.map((option) => `--${option}`).join(' and ')
    throw usage(
      `Cannot inject ${kind} with --${extra}: it has no such number`,
      hint ? `Its number is ${hint}` : 'tsx tasks/chaos-network.ts --help lists all faults',
    )
  }
  const within = (
    option: (typeof units)[number],
    least: number,
    most: number,
    fallback?: number,
  ): number => {
    const value = args[option] ?? fallback ?? Number.NaN
    if (value >= least && value <= most) return value
    const hint = `Write --${option} with a number from ${least} to ${most}`
    if (args[option] === undefined) throw usage(`Cannot inject ${kind} without --${option}`, hint)
    throw usage(`Cannot inject ${kind} with --${option} ${args[option]}`, hint)
  }
  if (kind === 'flap') {
    const { least, most } = flapped
    return { down: within('down', least, most, 2), up: within('up', least, most, 3) }
  }
  return unit ? { value: within(unit.option, unit.least, unit.most) } : {}
}

/**
 * Reads a lease (`60s`, `2m`, `1h`, `90`). @returns seconds
 * @throws Failure (usage) when it is not a time, too short to prove the fault, or so long that a person forgets it
 */
export function seconds(text: string): number {
  const found = /^([0-9]+(?:\.[0-9]+)?)\s*(s|m|h)?$/.exec(text.trim())
  const value = Number(found?.[1]) * { s: 1, m: 60, h: 3600 }[found?.[2] ?? 's']!
  if (found && value >= 5 && value <= 6 * 3600) return value
  throw usage(`Cannot read \`${text}\` as a lease`, 'Write a time from 5s to 6h, such as 60s or 2m')
}
