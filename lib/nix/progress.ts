/**
 * An event of nix's `--log-format internal-json`: one JSON object per line on standard error, after
 * `@nix `. The numbers are those of `ActivityType` and `ResultType`
 * in nix's `src/libutil/logging.hh`; they have been the same since 2.4.
 */
interface Event {
  action: 'start' | 'stop' | 'result' | 'msg'
  id?: number
  type?: number
  level?: number
  text?: string
  msg?: string
  fields?: (string | number)[]
}

const activity = { copyPath: 100, copyPaths: 103, builds: 104, build: 105 }
const result = { buildLogLine: 101, progress: 105 }
/** The level of messages about errors that stop nix. */
const levels = { error: 0 }

/** Counts like those of nix-output-monitor, and the last log lines of what failed. */
export interface Progress {
  /** Processes one line of standard error; true if it is an event of nix, not another program's output. */
  take: (line: string) => boolean
  /** One line with counts of builds and downloads, and what is being built. Empty before there is anything to count. */
  line: () => string
  /** Bytes copied. */
  copied: () => number
  /** Error messages with the last lines of the builders that failed, without colours. */
  errors: () => string
}

/** Follows nix's progress; `take` must get every line of its log. */
export function progress(): Progress {
  const counted = new Map<number, { done: number; expected: number; failed: number }>()
  const kinds = new Map<number, number>()
  const building = new Map<number, { name: string; log: string[] }>()
  const errors: string[] = []
  const lastLog: string[] = []

  const sum = (kind: number) => {
    const all = { done: 0, expected: 0, failed: 0 }
    for (const [id, of] of counted) {
      if (kinds.get(id) !== kind) continue
      all.done += of.done
      all.expected += of.expected
      all.failed += of.failed
    }
    return all
  }

  const handlers: Record<Event['action'], (event: Event) => void> = {
    start: ({ id, type, fields }) => {
      if (id === undefined || type === undefined) return
      kinds.set(id, type)
      if (type === activity.build) building.set(id, { name: nameOf(fields?.[0]), log: [] })
    },
    // counts stay when their activity ends: a second round of builds continues those of the first
    stop: ({ id }) => void building.delete(id ?? -1),
    result: ({ id, type, fields = [] }) => {
      if (id === undefined) return
      if (type === result.progress) {
        const [done = 0, expected = 0, , failed = 0] = fields.map(Number)
        counted.set(id, { done, expected, failed })
      } else if (type === result.buildLogLine) {
        const one = building.get(id)
        const words = plain(String(fields[0] ?? ''))
        one?.log.push(words)
        lastLog.push(words)
        if (one && one.log.length > 8) one.log.shift()
        if (lastLog.length > 8) lastLog.shift()
      }
    },
    msg: ({ level, msg }) => {
      if (level === levels.error && msg) errors.push(plain(msg))
    },
  }

  return {
    take: (line) => {
      if (!line.startsWith('@nix ')) return false
      try {
        const event = JSON.parse(line.slice(5)) as Event
        handlers[event.action]?.(event)
      } catch {
        // a line cut in two by a builder that writes to the same terminal
      }
      return true
    },
    line: () => {
      const built = sum(activity.builds)
      const copied = sum(activity.copyPaths)
      const names = [...building.values()].map(({ name }) => name)
      return [
        built.expected > 0 && `${built.done}/${built.expected} built`,
        copied.expected > 0 && `${copied.done}/${copied.expected} fetched`,
        built.failed > 0 && `${built.failed} failed`,
        names.length > 0 &&
          `building ${names.slice(0, 2).join(', ')}${names.length > 2 ? ` and ${names.length - 2} more` : ''}`,
      ]
        .filter(Boolean)
        .join(', ')
    },
    copied: () => sum(activity.copyPath).done,
    errors: () => [...(errors.length > 0 ? lastLog : []), ...errors].join('\n'),
  }
}

/** `hello-2.12` of `/nix/store/<hash>-hello-2.12.drv`. */
const nameOf = (path: string | number | undefined): string =>
  String(path ?? '')
    .replace(/^.*\/[a-z0-9]{32}-/, '')
    .replace(/\.drv$/, '')

// oxlint-disable-next-line no-control-regex -- exactly these are what must not reach a log
const plain = (text: string): string => text.replaceAll(/\u001b\[[0-9;]*m/g, '')
