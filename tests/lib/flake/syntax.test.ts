import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  attributeName,
  decode,
  firstError,
  leaves,
  lineOf,
  nixReader,
  nixString,
  sourceOf,
  staticText,
} from '../../../lib/flake/syntax.ts'

let scratch: string
beforeAll(() => (scratch = mkdtempSync(join(tmpdir(), 'nix-syntax-'))))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

const parse = async (text: string) => (await nixReader({ '/x.nix': text }))('/x.nix')

describe('a parsed file', () => {
  test('gives offsets into its text, even after characters outside the BMP', async () => {
    const text = '\uFEFF# é 👩‍💻\r\n{ a = "🖥️"; b = ./x; }'
    const { root } = await parse(text)
    const tokens = leaves(root).filter(({ type }) => type !== 'comment')
    const written = tokens.map(({ startIndex, endIndex }) => text.slice(startIndex, endIndex))
    expect(written).toEqual(['{', 'a', '=', '"', '🖥️', '"', ';', 'b', '=', './x', ';', '}'])
    expect(lineOf(tokens[0]!)).toBe(2)
  })

  test('is parsed once, and each of its nodes leads back to it', async () => {
    const path = join(scratch, 'a.nix')
    writeFileSync(path, '{ a = 1; }')
    const open = await nixReader()
    expect(open(path)).toBe(open(path))
    expect(leaves(open(path).root).map((leaf) => sourceOf(leaf).path)).toContain(path)
  })
})

describe('a syntax error', () => {
  test.each([
    ['{\n  a = 1\n  b = 2;\n}', 3],
    ['{\n  a = [ 1\n  ;\n}', 2],
    ['{\n  a = (1 + ;\n}', 2],
    ['x: {\n  y = [ ./a }\n}', 2],
    ['\n\n}', 3],
    ['{ a = ; }', 1],
  ])('in %j is found on line %i', async (text, line) => {
    const error = firstError((await parse(text)).root)
    expect(error && lineOf(error)).toBe(line)
  })

  test('is not reported in valid text', async () => {
    const { root } = await parse(
      '{ lib, ... }: lib.genAttrs [ "a" ] (n: { "${n}" = ./. + "/${n}"; })',
    )
    expect(firstError(root)).toBeUndefined()
  })
})

const awkward = [
  'plain',
  '${x}',
  '$${x}',
  '\\',
  '"; rm',
  "''",
  'a\nb\tc\r',
  '$',
  '{}',
  'ä🖥️',
  '\\${x}',
]

describe('a string literal', () => {
  test.each(awkward)('of %j parses back to the original text', async (text) => {
    const { root } = await parse(nixString(text))
    expect(firstError(root)).toBeUndefined()
    expect(staticText(root.namedChildren[0]!)).toBe(text)
  })

  test('evaluates in nix to the original text', ({ skip }) => {
    const args = ['--store', 'dummy://', '--eval', '--strict', '--json', '-E']
    const nix = spawnSync('nix-instantiate', [...args, `[ ${awkward.map(nixString).join(' ')} ]`])
    if (nix.error) skip('nix-instantiate is not installed')
    expect(JSON.parse(nix.stdout.toString())).toEqual(awkward)
  })

  test('with an interpolation has no static text', async () => {
    const { root } = await parse('"a${b}"')
    expect(staticText(root.namedChildren[0]!)).toBeUndefined()
  })
})

test('an attribute name is quoted only if necessary', () => {
  expect(['sorrow', 'web-1', "a'", '_x'].map(attributeName)).toEqual([
    'sorrow',
    'web-1',
    "a'",
    '_x',
  ])
  expect(['let', 'or', '1a', 'a b', ''].map(attributeName)).toEqual([
    '"let"',
    '"or"',
    '"1a"',
    '"a b"',
    '""',
  ])
})

test('decoding keeps a byte order mark and refuses invalid UTF-8', () => {
  const bytes = Buffer.from('\uFEFF{ }\r\n')
  expect(Buffer.from(decode(bytes, 'x')).equals(bytes)).toBe(true)
  expect(() => decode(Buffer.from([0xc3, 0x28]), 'x')).toThrow(
    'Cannot read `x`: it is not UTF-8 text',
  )
})
