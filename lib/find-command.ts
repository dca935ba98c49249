import { accessSync, constants } from 'node:fs'
import { resolve } from 'node:path'

/** Where commands are searched: Debian keeps the disk tools in sbin, which is not in a user's PATH. */
export const searchPath = (): string => `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`

/** The path of a command, or undefined; also searches the sbin directories. */
export function findCommand(name: string): string | undefined {
  return searchPath()
    .split(':')
    .map((directory) => resolve(directory, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}
