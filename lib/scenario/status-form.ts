/** Says what is wrong with a value, after the name of its field; undefined for a valid one. */
type Form = (value: unknown) => string | undefined

const shown = (value: unknown): string => JSON.stringify(value)?.slice(0, 60) ?? 'missing'

const text =
  (pattern: RegExp): Form =>
  (value) =>
    typeof value === 'string' && pattern.test(value) ? undefined : shown(value)

const orNull =
  (form: Form): Form =>
  (value) =>
    value === null ? undefined : form(value)

const either =
  (...forms: Form[]): Form =>
  (value) =>
    forms.some((form) => form(value) === undefined) ? undefined : shown(value)

const whole: Form = (value) =>
  Number.isInteger(value) && Number(value) > 0 ? undefined : shown(value)

const list =
  (form: Form): Form =>
  (value) =>
    Array.isArray(value) ? value.map(form).find((wrong) => wrong !== undefined) : shown(value)

/** Exactly these fields; those whose name ends with `?` may be missing. */
const fields =
  (forms: Record<string, Form>): Form =>
  (value) => {
    if (typeof value !== 'object' || value === null) return shown(value)
    const given = new Map<string, unknown>(Object.entries(value))
    const names = Object.keys(forms).map((name) => name.replace('?', ''))
    const more = [...given.keys()].find((name) => !names.includes(name))
    if (more !== undefined) return `${more}, which is no field`
    for (const [named, form] of Object.entries(forms)) {
      const name = named.replace('?', '')
      if (name !== named && !given.has(name)) continue
      const wrong = form(given.get(name))
      if (wrong !== undefined) return `${name}: ${wrong}`
    }
    return undefined
  }

const any = text(/^/)
const some = text(/./s)
const time = text(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
// a flake without a history, such as a tarball, is identified by the hash of its contents
const commit = text(/^([0-9a-f]{40}|[0-9a-f]{64}|sha256-\S+)$/)
const none: Form = (value) => (value === null ? undefined : shown(value))
const generation = orNull(whole)
const path = text(/^\/./)
const nothing = text(/^$/)

const upgradeOutcomes =
  /^(upgraded|up-to-date|offline|locked|diverged|conflict|no-space|skipped-known-bad|(build|switch|validation)-failed|failed)$/
const syncOutcomes = /^(synced|up-to-date|offline|skipped|diverged|conflict|failed)$/

interface Deployed {
  toplevel?: unknown
}
const built = fields({ commit, toplevel: path, generation })
/** A generation that is not built yet has neither path nor number. */
const unbuilt = fields({ commit, toplevel: nothing, generation: none })

/** What `nix-local-upgrade` writes to its status.json, while it runs and when it has ended. */
export const upgradeForm = fields({
  phase: some,
  outcome: orNull(text(upgradeOutcomes)),
  reason: any,
  // a host may have no name
  host: any,
  mode: text(/^(local|remote)$/),
  // the commit of a system that was switched to by hand is unknown
  from: fields({ commit: either(commit, nothing), toplevel: path, generation }),
  to: orNull((value) => ((value as Deployed).toplevel === '' ? unbuilt : built)(value)),
  notRestored: list(some),
  checks: list(fields({ command: some, result: text(/^(ok|failed|n\/a)$/) })),
  started: time,
  finished: orNull(time),
})

const atWork = { phase: some, reason: orNull(some), host: some, started: time }

/** What `chezmoi-sync` writes to its status.json while it runs. */
const syncingForm = fields({ ...atWork, outcome: orNull(any), finished: orNull(time) })

const syncedForm = fields({
  ...atWork,
  outcome: text(syncOutcomes),
  source: orNull(path),
  branch: orNull(some),
  from: orNull(commit),
  to: orNull(commit),
  finished: time,
  captured: list(some),
  applied: list(some),
  kept: list(fields({ file: some, reason: some, 'copy?': some })),
  conflicts: list(fields({ host: some, files: list(some) })),
})

/** What `chezmoi-sync` writes to its status.json; fields that it knows only at the end are absent before. */
export const syncForm: Form = (value) =>
  (value as { outcome?: unknown } | null)?.outcome === null ? syncingForm(value) : syncedForm(value)
