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

const colour = (code: number) => (text: string) =>
  process.stdout.isTTY && !process.env['NO_COLOR'] ? `\u001b[${code}m${text}\u001b[0m` : text

export const green = colour(32)
export const red = colour(31)
export const yellow = colour(33)
