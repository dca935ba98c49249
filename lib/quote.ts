/** A word for a POSIX shell, in single quotes. */
export const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** A command line to paste into a shell: only words that the shell would change are quoted. */
export const pasted = (...words: string[]): string =>
  words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : quote(word))).join(' ')
