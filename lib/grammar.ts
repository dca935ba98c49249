import { createRequire } from 'node:module'
import { setFlagsFromString } from 'node:v8'
import type { Parser } from 'web-tree-sitter'

const parsers = new Map<string, Promise<Parser>>()
let begun: Promise<typeof import('web-tree-sitter')> | undefined

/** The parser of a language, loaded once (about 25 ms). */
export function parserOf(language: 'bash' | 'nix'): Promise<Parser> {
  let parser = parsers.get(language)
  if (!parser) parsers.set(language, (parser = loaded(language)))
  return parser
}

async function loaded(language: string): Promise<Parser> {
  // two initialisations at once would give one parser the grammar of the other
  const { Language, Parser } = await (begun ??= begin())
  const { resolve } = createRequire(import.meta.url)
  const grammar = resolve(`@cursorless/tree-sitter-wasms/out/tree-sitter-${language}.wasm`)
  return new Parser().setLanguage(await Language.load(grammar))
}

async function begin(): Promise<typeof import('web-tree-sitter')> {
  // otherwise V8 also compiles the grammar with optimisations, which takes ten times as long as the parsing, and no
  // signal ends the process before that is done; Node 24 needs all three flags
  setFlagsFromString('--liftoff-only --no-wasm-tier-up --no-wasm-dynamic-tiering')
  const treeSitter = await import('web-tree-sitter')
  await treeSitter.Parser.init()
  return treeSitter
}
