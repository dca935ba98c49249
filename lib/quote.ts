/** A word for a POSIX shell, in single quotes. */
export const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** A command line to be pasted into a shell: a word is quoted where the shell would not take it as it is. */
export const pasted = (...words: string[]): string =>
  words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : quote(word))).join(' ')
