import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { readRegular, withDirectory, writeFile } from '../../lib/write-file.ts'

let dir: string
let path: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'write-file-'))
  path = join(dir, 'flake.nix')
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

describe('reading', () => {
  test('returns bytes and mode', () => {
    writeFileSync(path, Buffer.from([0xff, 0x0d, 0x0a]))
    chmodSync(path, 0o640)
    expect(readRegular(path)).toMatchObject({
      path,
      bytes: Buffer.from([0xff, 0x0d, 0x0a]),
      mode: 0o640,
    })
  })

  test('refuses a symlink, a directory and a missing file', () => {
    symlinkSync('/etc/passwd', path)
    expect(() => readRegular(path)).toThrow(`Cannot edit \`${path}\`: it is a symlink`)
    expect(() => readRegular(dir)).toThrow(`Cannot read \`${dir}\`: it is not a regular file`)
    expect(() => readRegular(join(dir, 'none'))).toThrow('it does not exist')
  })
})

describe('writing', () => {
  test('replaces the file by a new one with the same mode and owner, and leaves no draft', () => {
    writeFileSync(path, 'old')
    chmodSync(path, 0o604)
    const { ino } = statSync(path)
    writeFile(path, 'new', { over: readRegular(path) })
    expect(readFileSync(path, 'utf8')).toBe('new')
    expect(statSync(path).mode & 0o7777).toBe(0o604)
    expect(statSync(path).ino).not.toBe(ino)
    expect(readdirSync(dir)).toEqual(['flake.nix'])
  })

  test('keeps the owner when root writes', ({ skip }) => {
    if (process.getuid?.() !== 0) skip('only root can give a file away')
    writeFileSync(path, 'old')
    const over = { ...readRegular(path), uid: 12345, gid: 54321 }
    writeFile(path, 'new', { over })
    expect(statSync(path)).toMatchObject({ uid: 12345, gid: 54321 })
  })

  test('creates a new file with the requested mode, and never overwrites one', () => {
    writeFile(path, 'one', { mode: 0o600 })
    expect(statSync(path).mode & 0o7777).toBe(0o600)
    expect(() => writeFile(path, 'two')).toThrow(`Cannot write \`${path}\`: it exists`)
    expect(readFileSync(path, 'utf8')).toBe('one')
    expect(readdirSync(dir)).toEqual(['flake.nix'])
  })

  test('refuses a file that changed, vanished or became a symlink since it was read', () => {
    const changes: (() => void)[] = [
      () => appendFileSync(path, ' '),
      () => writeFileSync(path, 'OLD'),
      () => rmSync(path),
      () => {
        rmSync(path)
        writeFileSync(join(dir, 'other'), 'old')
        symlinkSync('other', path)
      },
    ]
    for (const change of changes) {
      rmSync(path, { force: true })
      writeFileSync(path, 'old')
      const over = readRegular(path)
      change()
      const now = existsSync(path) && [lstatSync(path).isSymbolicLink(), readFileSync(path, 'utf8')]
      expect(() => writeFile(path, 'new', { over })).toThrow('it changed meanwhile')
      expect(
        existsSync(path) && [lstatSync(path).isSymbolicLink(), readFileSync(path, 'utf8')],
      ).toEqual(now)
      expect(readdirSync(dir).filter((entry) => entry.endsWith('.new'))).toEqual([])
    }
  })

  test('removes drafts of killed writers, and no others', () => {
    const none = 4_194_304 // one more than the kernel's greatest pid
    for (const entry of [
      `.flake.nix.${none}.new`,
      '.flake.nix.1.new',
      `.other.${none}.new`,
      '.flake.nix.new',
    ]) {
      writeFileSync(join(dir, entry), '')
    }
    writeFile(path, 'new')
    expect(readdirSync(dir).toSorted()).toEqual([
      '.flake.nix.1.new',
      '.flake.nix.new',
      `.other.${none}.new`,
      'flake.nix',
    ])
  })

  test('gives the reason in one line if it fails', () => {
    expect(() => writeFile(join(dir, 'no/such/file'), '')).toThrow(
      /^Cannot write `.*`: no such file or directory$/,
    )
    mkdirSync(path)
    const over = { path, bytes: Buffer.from(''), mode: 0o644, uid: 0, gid: 0 }
    expect(() => writeFile(path, 'x', { over })).toThrow('it changed meanwhile')
  })
})

describe('a locked directory', () => {
  test('admits one writer at a time, and then the next', async () => {
    const log: string[] = []
    const work = (name: string) =>
      withDirectory(dir, 20, async () => {
        log.push(`${name} in`)
        await sleep(50)
        log.push(`${name} out`)
      })
    await Promise.all([work('a'), work('b'), work('c')])
    expect(log).toHaveLength(6)
    for (const i of [0, 2, 4]) expect(log[i + 1]).toBe(log[i]!.replace('in', 'out'))
    expect(readdirSync(dir)).toEqual([])
  })

  test('is free again after a failure, and refuses a writer that waited too long', async () => {
    await expect(withDirectory(dir, 1, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    await withDirectory(dir, 1, async () => {
      await expect(withDirectory(dir, 0.2, () => Promise.resolve())).rejects.toThrow(
        `Cannot write in \`${dir}\`: another task has been writing there for 0.2 s`,
      )
    })
  })
})

describe('as another user', () => {
  /** The output of code that runs as a user who owns nothing here. */
  const asNobody = (code: string): string => {
    const { stdout, stderr } = spawnSync(
      'setpriv',
      [
        ...['--reuid=65534', '--regid=65534', '--clear-groups'],
        ...[process.execPath, '--import', 'tsx', '--input-type=module', '--eval'],
        `const { explain } = await import('${project}/lib/failure.ts')
         const { flakeDirectory } = await import('${project}/lib/flake/directory.ts')
         const { readRegular, requireWritable, writeFile } = await import('${project}/lib/write-file.ts')
         const { writeHost } = await import('${project}/lib/scaffold/directory.ts')
         const [path, dir] = ${JSON.stringify([path, dir])}
         try { ${code}; console.log('done') } catch (thrown) { console.log(explain('t', thrown)) }`,
      ],
      { cwd: project, encoding: 'utf8', env: { PATH: process.env['PATH'], HOME: tmpdir() } },
    )
    return stdout.trimEnd() || stderr
  }
  const hint = (of: string): string =>
    `\n  hint: \`${of}\` belongs to user 0: run this as that user, or in a clone of your own`

  test('the message for a file that cannot be read or written names its owner', ({ skip }) => {
    if (process.getuid?.() !== 0) skip('only root can be another user')
    chmodSync(dir, 0o755)
    writeFileSync(path, 'old')
    const over = 'const over = readRegular(path)'
    const no = (verb: string, what: string, of = what): string =>
      `t: Cannot ${verb} \`${what}\`: permission denied${hint(of)}`
    expect(asNobody(`${over}; requireWritable(over)`)).toBe(no('edit', path))
    expect(asNobody(`${over}; writeFile(path, 'new', { over })`)).toBe(no('write', path))
    const host = join(dir, 'hosts/web')
    expect(asNobody(`writeHost(dir, '${host}', { 'default.nix': '' })`)).toBe(
      no('write', host, dir),
    )
    // write access to the directory is no permission to replace another user's file
    chmodSync(dir, 0o777)
    expect(asNobody(`${over}; requireWritable(over)`)).toBe(no('edit', path))
    chmodSync(path, 0o600)
    expect(asNobody(over)).toBe(no('read', path))
    chmodSync(dir, 0o700)
    expect(asNobody('flakeDirectory(dir)')).toBe(no('read', path, dir))
    expect(readFileSync(path, 'utf8')).toBe('old')
    expect(readdirSync(dir)).toEqual(['flake.nix'])
  })
})
