/**
 * Makes the pictures of the README from real runs: `just pictures`, or `just pictures lab`. It deploys both VMs in a
 * temporary LAB_HOME, runs some cases and ends both. The picture of the report needs chromium. Because `just compare`
 * takes more than an hour, `just pictures compare <its directory>` draws the result of an earlier run.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from '@lydell/node-pty'
import xterm from '@xterm/headless'
import { project } from '../lib/settings.ts'

const home = mkdtempSync(join(tmpdir(), 'lab-pictures-'))
const pictures = join(project, 'docs/pictures')
const cases = [
  'auto-upgrade/good-commit',
  'auto-upgrade/validation-fails',
  'break-boot/missing-init',
  'chaos-network/delay',
  'concurrent-edits/different-files',
]

/** The sixteen colours of a terminal, for a dark background. */
const colors = [
  '#484f58',
  '#ff7b72',
  '#3fb950',
  '#d29922',
  '#58a6ff',
  '#bc8cff',
  '#39c5cf',
  '#b1bac4',
  '#6e7681',
  '#ffa198',
  '#56d364',
  '#e3b341',
  '#79c0ff',
  '#d2a8ff',
  '#56d4dd',
  '#ffffff',
]

async function pictured(part?: string, run?: string): Promise<void> {
  try {
    if (part === 'compare') return await compared(join(run!, 'compare.json'))
    const lab = await record('npx just lab')
    writeFileSync(join(pictures, 'lab.svg'), svg('npx just lab', lab.last()))
    if (part === 'lab') return
    const flags = cases.flatMap((name) => ['--case', name]).join(' ')
    const gitops = await record(`npx just gitops-test ${flags}`, /^2 of \d+, \d+ \w+, about/m)
    writeFileSync(join(pictures, 'gitops-test.svg'), svg('npx just gitops-test', gitops.seen()))
    report()
  } finally {
    if (part !== 'compare') await record('npx just down --now').catch(console.error)
    rmSync(home, { recursive: true, force: true })
  }
}

/** The matrix of a run of `just compare`, as it was printed at its end, without the reasons. */
async function compared(file: string): Promise<void> {
  const again = `import { readFileSync } from 'node:fs'
    import { matrixText } from './lib/scenario/matrix.ts'
    const { promises, runs, date, ground, seeds } = JSON.parse(readFileSync(process.argv[1], 'utf8'))
    const lines = matrixText(promises, Object.keys(runs)).split('\\n').slice(0, promises.length + 1)
    console.log(lines.join('\\n') + '\\n' + [date, ground, 'seed ' + seeds].join('; '))`
  const command = `node --import tsx --input-type module -e ${quote(again)} ${quote(file)}`
  const matrix = await record(command, undefined, 148)
  writeFileSync(join(pictures, 'compare.svg'), svg('npx just compare', matrix.last()))
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** Takes a screenshot of the top of the newest run's report. */
function report(): void {
  const runs = join(home, 'runs')
  const newest = readdirSync(runs).toSorted().at(-1)!
  const window = '--window-size=1100,900'
  const quiet = ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', window]
  const to = `--screenshot=${join(pictures, 'report.png')}`
  const profile = `--user-data-dir=${join(home, 'chromium')}`
  const page = `file://${join(runs, newest, 'report.html')}`
  execFileSync('chromium', [...quiet, to, profile, page], { stdio: 'ignore' })
}

type Screen = Cell[][]
interface Cell {
  text: string
  color: string
  bold: boolean
}

/**
 * Runs a command in a terminal, to its end.
 * @param when matches the screens to keep while it runs
 * @returns the screen at the end, and the last one that matched
 */
async function record(
  command: string,
  when?: RegExp,
  cols = 100,
): Promise<{ last: () => Screen; seen: () => Screen }> {
  const size = { cols, rows: 40 }
  const emulator = new xterm.Terminal({ ...size, scrollback: 1000, allowProposedApi: true })
  const { CI: _, ...env } = process.env
  const child = spawn('bash', ['-c', command], {
    ...size,
    name: 'xterm-256color',
    cwd: project,
    env: { ...env, LAB_HOME: home, LAB_ENV_FILE: '', XDG_RUNTIME_DIR: home },
  })
  let seen: Screen = []
  child.onData((data) =>
    emulator.write(data, () => {
      const now = screenOf(emulator)
      if (when?.test(textOf(now))) seen = now
    }),
  )
  await new Promise((resolve) => child.onExit(resolve))
  await new Promise<void>((resolve) => emulator.write('', resolve))
  const last = screenOf(emulator)
  return { last: () => last, seen: () => (seen.length > 0 ? seen : last) }
}

function screenOf(emulator: InstanceType<typeof xterm.Terminal>): Screen {
  const { active } = emulator.buffer
  return Array.from({ length: emulator.rows }, (_row, y) => {
    const line = active.getLine(active.baseY + y)!
    return Array.from({ length: emulator.cols }, (_column, x): Cell => {
      const cell = line.getCell(x)!
      const faint = cell.isDim() ? '#8b949e' : '#c9d1d9'
      const color = cell.isFgDefault() ? faint : (colors[cell.getFgColor()] ?? faint)
      return { text: cell.getChars() || ' ', color, bold: Boolean(cell.isBold()) }
    })
  })
}

const textOf = (screen: Screen): string =>
  screen.map((row) => row.map(({ text }) => text).join('')).join('\n')

/** A screen as a picture: one text element for each run of the same colour. */
function svg(title: string, screen: Screen): string {
  const [wide, high, top] = [8.4, 18, 44]
  const rows = screen.slice(0, screen.findLastIndex((row) => textOf([row]).trim()) + 1)
  const text = rows.flatMap((row, y) =>
    runsOf(row).map(
      ({ at, text: words, color, bold }) =>
        `<text x="${(16 + at * wide).toFixed(1)}" y="${top + y * high}" fill="${color}"${bold ? ' font-weight="bold"' : ''} textLength="${(words.length * wide).toFixed(1)}">${escaped(words.replaceAll(' ', '\u00a0'))}</text>`,
    ),
  )
  const [width, height] = [Math.round(rows[0]!.length * wide + 32), top + rows.length * high + 6]
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}">
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<text x="16" y="22" fill="#8b949e" font-family="sans-serif" font-size="13">${escaped(title)}</text>
<g font-family="ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace" font-size="14" xml:space="preserve">
${text.join('\n')}
</g>
</svg>
`
}

function runsOf(row: Cell[]): { at: number; text: string; color: string; bold: boolean }[] {
  const runs: { at: number; text: string; color: string; bold: boolean }[] = []
  for (const [at, { text, color, bold }] of row.entries()) {
    const last = runs.at(-1)
    if (last && last.color === color && last.bold === bold) last.text += text
    else runs.push({ at, text, color, bold })
  }
  return (
    runs
      // show the default LAB_HOME
      .map((run) => ({
        ...run,
        text: run.text.replaceAll(home, '~/.local/state/gitops-vm-lab').trimEnd(),
      }))
      .filter(({ text }) => text.length > 0)
  )
}

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')

await pictured(...process.argv.slice(2))
