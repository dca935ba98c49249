import { existsSync, statSync } from 'node:fs'

/** False for a path below a regular file too, for which `statSync` would throw. */
export const isDirectory = (path: string): boolean =>
  existsSync(path) && statSync(path).isDirectory()

export const isFile = (path: string): boolean => existsSync(path) && statSync(path).isFile()
