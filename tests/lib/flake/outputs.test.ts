import { expect, test } from 'vitest'
import { throughOutputs } from '../../../lib/flake/outputs.ts'

const through = (text: string): Promise<string> => throughOutputs('flake.nix', text, 'f')

test.each([
  ['{ outputs = _: { }; }', '{ outputs = _: f ({ }); }'],
  [
    '# mine\n{\n  inputs = { };\n  outputs = { self, nixpkgs, }@inputs: let a = 1; in { inherit a; } # end\n  ;\n}\n',
    '# mine\n{\n  inputs = { };\n  outputs = { self, nixpkgs, }@inputs: f (let a = 1; in { inherit a; }) # end\n  ;\n}\n',
  ],
  [
    '{ description = "outputs"; outputs = (inputs: inputs.parts.mkFlake { inherit inputs; } { }); }',
    '{ description = "outputs"; outputs = (inputs: f (inputs.parts.mkFlake { inherit inputs; } { })); }',
  ],
  [
    '{ outputs = inputs: import ./outputs.nix inputs; }',
    '{ outputs = inputs: f (import ./outputs.nix inputs); }',
  ],
])('the outputs of %s are wrapped in a function', async (before, after) => {
  expect(await through(before)).toBe(after)
})

test.each(['{ }', '{ outputs = import ./outputs.nix; }', 'x: { outputs = x; }'])(
  'a flake.nix that nix would reject is refused: %s',
  async (text) => {
    await expect(through(text)).rejects.toThrow('Cannot find `outputs = { self, ... }: …`')
  },
)
