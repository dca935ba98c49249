import { Failure } from '../failure.ts'
import type { Ssh } from './ssh.ts'

export interface Answer {
  code: number
  /** Standard output and error, trimmed. */
  text: string
}

/**
 * Runs shell snippets in a guest side by side, as the user who is logged in, over one command of one
 * connection. They are bash, and best its builtins: under TCG each program that is started costs a
 * tenth of a second of a CPU that all of them share. So systemd is asked once: `unit <name>` prints
 * load, active and sub state of a unit and fails when it is not active, `failed` names failed units.
 * @param probes snippet by a name of letters and digits
 * @param limit seconds for all of them; a probe that hangs has no answer then, the others have theirs
 */
export async function probe(
  ssh: Ssh,
  probes: Record<string, string>,
  limit: number,
): Promise<Record<string, Answer>> {
  const answers: Record<string, Answer> = {}
  const onLine = (line: string): void => {
    // oxlint-disable-next-line no-control-regex -- the record separator, which no text has
    const [, name, code, text = ''] = /^\u001e(\w+) (\d+) ([^]*)$/.exec(line) ?? []
    if (!name) return
    const lines = text.replaceAll(/\\(.)/g, (_, c: string) => (c === 'n' ? '\n' : c))
    answers[name] = { code: Number(code), text: lines.trim() }
  }
  // one line an answer, written at once, so that those of two probes never mix
  const script = [
    'list() { units=$(systemctl list-units --all --plain --no-legend --no-pager); }',
    // A guest that still boots has answers that are not yet true. It is asked again and again, as
    // `is-system-running --wait` misses the end of a boot that comes before the bus is there.
    'booting() { local name load active; while read -r name load active _; do',
    '[[ $name != *.service || $active != activating ]] || return 0; done <<<"$units"; return 1; }',
    'list; if booting; then until [ $SECONDS -ge 120 ] ||',
    '[[ $(systemctl is-system-running) != @(initializing|starting) ]]; do sleep 1; done; list; fi',
    'unit() { local name state; while read -r name state; do',
    '[ "$name" != "$1" ] || { set -- $state; echo "$1 $2 $3"; [ "$2" = active ]; return; }',
    'done <<<"$units"; echo not-found inactive dead; return 1; }',
    'failed() { local name load active; while read -r name load active _; do',
    '[ "$active" != failed ] || echo "$name"; done <<<"$units"; }',
    'p() { local c t; t=$(eval "$2" 2>&1 </dev/null); c=$?; t=${t//\\\\/\\\\\\\\}',
    `printf '\\036%s %s %s\\n' "$1" "$c" "\${t//$'\\n'/\\\\n}"; }`,
    ...Object.entries(probes).map(([name, snippet]) => `p ${name} ${quote(snippet)} &`),
    'wait',
  ]
  try {
    await ssh.exec('exec bash -s', { input: `${script.join('\n')}\n`, timeout: limit, onLine })
  } catch (thrown) {
    if (!(thrown instanceof Failure) || Object.keys(answers).length === 0) throw thrown
  }
  return answers
}

/** A word for a POSIX shell. */
export const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`
