/** Rows as aligned columns; the first row is the head. Widths are counted without colour codes. */
export function table(rows: string[][]): string {
  // oxlint-disable-next-line no-control-regex -- colour codes take no room on the screen
  const width = (text: string): number => text.replace(/\u001b\[[0-9;]*m/g, '').length
  const widths = rows[0]!.map((_, column) =>
    Math.max(...rows.map((row) => width(row[column] ?? ''))),
  )
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell + ' '.repeat(widths[column]! - width(cell)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Colours text by a colour code, if the stream shows colours. */
export const colourOn = (stream: { isTTY?: boolean }) => (code: number) => (text: string) =>
  stream.isTTY && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb'
    ? `\u001b[${code}m${text}\u001b[0m`
    : text

const colour = colourOn(process.stdout)

export const green = colour(32)
export const red = colour(31)
export const yellow = colour(33)
