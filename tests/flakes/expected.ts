/** The expected result of adding `sorrow` to each flake beside this file; written and checked by hand. */
export interface ExpectedEdit {
  flake: string
  /** The edited file; `flake.nix` by default. */
  file?: string
  line: number
  /** The host that is copied. */
  like?: string
  inserted: string | string[]
  /** What the user is told to check; not compared where it is missing. */
  notes?: string[]
}

export const edits: ExpectedEdit[] = [
  {
    flake: 'numbered',
    line: 9,
    like: 'whinchat',
    inserted: ['', '        sorrow = "desktop";'],
    notes: [],
  },
  {
    flake: 'gen-attrs-prime',
    line: 5,
    like: 'avocet',
    inserted: ' "sorrow"',
    notes: [],
  },
  {
    flake: 'fold-right',
    line: 6,
    like: 'dotterel',
    inserted: ' "sorrow"',
    notes: [],
  },
  {
    flake: 'left-out',
    file: 'machines.nix',
    line: 5,
    like: 'wagtail',
    inserted: ['', '  sorrow = usual;'],
    notes: [],
  },
  {
    flake: 'record-files',
    line: 11,
    like: 'rook',
    inserted: ['', '        sorrow = make (import ./hosts/sorrow.nix);'],
    notes: [
      '`@/hosts/sorrow.nix` must be like `@/hosts/rook.nix`: the flake imports it, and not as a module',
    ],
  },
  {
    flake: 'told-its-name',
    line: 14,
    like: 'tern',
    inserted: ['', '        sorrow = { };'],
    notes: [],
  },
  {
    flake: 'whole-systems',
    line: 7,
    like: 'ruff',
    inserted: ['', '        sorrow = import ./hosts/sorrow { inherit inputs; };'],
    notes: ['`@/hosts/sorrow/default.nix` must make a whole system, as `@/hosts/ruff/default.nix` does'],
  },
  {
    flake: 'by-platform',
    line: 11,
    like: 'garganey',
    inserted: ['', '          sorrow = { };'],
    notes: [],
  },
  {
    flake: 'extended-lib',
    line: 11,
    like: 'linnet',
    inserted: ['', '        (mkHost "sorrow" "mia" [ ])'],
  },
  {
    flake: 'filtered',
    line: 8,
    like: 'ibis',
    inserted: ['', '        sorrow = { os = "nixos"; };'],
  },
  {
    flake: 'filtered-names',
    line: 8,
    like: 'ouzel',
    inserted: ['', '        { name = "sorrow"; system = "x86_64-linux"; files = ./sorrow; }'],
  },
  {
    flake: 'own-patch',
    line: 9,
    like: 'curlew',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          modules = [ (import ./system.nix { }) { boot.patches = [ ./patches/sorrow.patch ]; } ];',
      '        };',
    ],
  },
  {
    flake: 'flattened',
    line: 9,
    like: 'stoat',
    inserted: ['', '        sorrow = { };'],
  },
  {
    flake: 'applied-module',
    file: 'machines.nix',
    line: 6,
    like: 'siskin',
    inserted: [
      '',
      '    sorrow = inputs.nixpkgs.lib.nixosSystem { system = platform; modules = [ ./sorrow.nix ]; };',
    ],
  },
  {
    flake: 'shared-names',
    line: 16,
    like: 'linnet',
    inserted: ['', '        sorrow = mkHost "sorrow" (import ./machines/sorrow.nix);'],
    notes: [],
  },
  {
    flake: 'addresses',
    line: 16,
    like: 'lynx',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          modules = [',
      '            {',
      '              networking.hostName = "sorrow";',
      '              mine.mac = "02:47:8b:d3:f1:02";',
      '              mine.addresses = [ "192.0.2.5/24" "2001:db8::5" ];',
      '              mine.listen = [ "127.0.0.1" "0.0.0.0" "::1" ];',
      '            }',
      '          ];',
      '        };',
    ],
    notes: [
      'The new entry still says `02:47:8b:d3:f1:02`, as that of `lynx` does',
      'The new entry still says `192.0.2.5/24`, as that of `lynx` does',
      'The new entry still says `2001:db8::5`, as that of `lynx` does',
    ],
  },
  {
    flake: 'trees',
    file: 'hosts/crake.nix',
    line: 6,
    like: 'crake',
    inserted: [
      '',
      '  flake.nixosConfigurations.sorrow = inputs.nixpkgs.lib.nixosSystem {',
      '    modules = [ ../machines/sorrow ];',
      '  };',
    ],
  },
  {
    flake: 'self-outputs',
    line: 9,
    like: 'dunlin',
    inserted: ['', '        sorrow = { imports = [ ./nodes/sorrow ]; };'],
  },
  {
    flake: 'systems-beside',
    line: 14,
    like: 'ruff',
    inserted: ['', '          sorrow = lib.nixosSystem { modules = [ ./hosts/sorrow ]; };'],
  },
  {
    flake: 'empty-inherit',
    line: 11,
    like: 'ouzel',
    inserted: ['', '      nixosConfigurations.sorrow = system { modules = [ ./sorrow.nix ]; };'],
  },
  {
    flake: 'evaluated-module',
    file: 'fleet.nix',
    line: 6,
    like: 'scaup',
    inserted: [
      '',
      '    sorrow = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/sorrow.nix ]; };',
    ],
  },
  {
    flake: 'other-platforms',
    line: 15,
    like: 'avocet',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          modules = [ ./hosts/sorrow ./common.nix ];',
      '        };',
    ],
  },
  {
    flake: 'own-files',
    line: 9,
    like: 'plover',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          modules = [ "${self}/machines/sorrow/configuration.nix" ./base.nix ];',
      '        };',
    ],
  },
  {
    flake: 'modules-by-name',
    line: 12,
    like: 'eider',
    inserted: ['', '        sorrow = mkHost "sorrow" [ self.disks.sorrow ];'],
    notes: [
      'There is no `sorrow` in `self.nixosModules.${name}` yet, at line 6 of `@/flake.nix`',
      '`self.disks.sorrow` is not there yet',
    ],
  },
  {
    flake: 'modules-of-all',
    file: 'modules/hosts.nix',
    line: 6,
    like: 'clover',
    inserted: [
      '',
      '    sorrow = inputs.nixpkgs.lib.nixosSystem { modules = [ config.flake.modules.nixos.sorrow ]; };',
    ],
    notes: ['`config.flake.modules.nixos.sorrow` is not there yet'],
  },
  {
    flake: 'own-hosts-option',
    line: 8,
    like: 'tern',
    inserted: ['', '      hosts.sorrow.modules = [ ./hosts/sorrow.nix ];'],
  },
  {
    flake: 'hive',
    line: 10,
    like: 'queen',
    inserted: ['', '        sorrow = { imports = [ ./nodes/sorrow ]; };'],
  },
  {
    flake: 'any-module',
    file: 'modules/hosts/fennel/default.nix',
    line: 6,
    like: 'fennel',
    inserted: [
      '',
      '  flake.nixosConfigurations.sorrow = inputs.nixpkgs.lib.nixosSystem {',
      '    modules = [ ./_hardware.nix ];',
      '  };',
    ],
  },
  {
    flake: 'listed-modules',
    file: 'modules/hosts.nix',
    line: 1,
    like: 'sage',
    inserted: ' flake.nixosConfigurations.sorrow = inputs.nixpkgs.lib.nixosSystem { modules = [ ]; };',
  },
  {
    flake: 'pipes',
    line: 12,
    like: 'sorrel',
    inserted: ['', '          "sorrow"'],
  },
  {
    flake: 'adios-flake',
    line: 10,
    like: 'moth',
    inserted: [
      '',
      '        nixosConfigurations.sorrow = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/sorrow ]; };',
    ],
  },
  {
    flake: 'assert-parens',
    line: 12,
    like: 'umber',
    inserted: [
      '',
      '        sorrow = mkHost { modules = [ ./sorrow ]; };',
    ],
  },
  {
    flake: 'blank-lines',
    line: 16,
    like: 'willow',
    inserted: [
      '',
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          modules = [ ./sorrow.nix ];',
      '        };',
    ],
  },
  {
    flake: 'dotted',
    line: 18,
    like: 'bellows',
    inserted: [
      '',
      '',
      '      nixosConfigurations.sorrow = lib.nixosSystem {',
      '        modules = [ ./sorrow.nix ];',
      '      };',
    ],
  },
  {
    flake: 'dotted-single',
    line: 7,
    like: 'nixos',
    inserted: [
      '',
      '    nixosConfigurations."sorrow" = inputs.nixpkgs.lib.nixosSystem {',
      '      system = "x86_64-linux";',
      '      modules = [ ./configuration.nix inputs.nixos-hardware.nixosModules.common-pc-ssd ];',
      '    };',
    ],
  },
  {
    flake: 'empty-list',
    line: 5,
    inserted: ' "sorrow"',
  },
  {
    flake: 'empty-set',
    line: 8,
    inserted: ' sorrow = mkHost { hostname = "sorrow"; };',
  },
  {
    flake: 'empty-set-lines',
    line: 10,
    inserted: [
      '',
      '        sorrow = mkNixosHost "sorrow";',
    ],
  },
  {
    flake: 'flake-parts-dotted',
    line: 10,
    like: 'bee',
    inserted: [
      '',
      '      flake.nixosConfigurations.sorrow = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/sorrow ]; };',
    ],
  },
  {
    flake: 'flake-parts-import',
    file: 'hosts/default.nix',
    line: 9,
    like: 'fir',
    inserted: [
      '',
      '    sorrow = nixosSystem { modules = [ ./sorrow ]; };',
    ],
  },
  {
    flake: 'flake-parts-set',
    line: 17,
    like: 'birch',
    inserted: [
      '',
      '              sorrow = mkHost inputs { name = "sorrow"; };',
    ],
  },
  {
    flake: 'flake-utils',
    line: 9,
    like: 'slate',
    inserted: [
      '',
      '      nixosConfigurations.sorrow = nixpkgs.lib.nixosSystem { modules = [ ./sorrow.nix ]; };',
    ],
  },
  {
    flake: 'fold',
    line: 7,
    like: 'loess',
    inserted: ' "sorrow"',
  },
  {
    flake: 'gen-attrs',
    line: 3,
    like: 'bay',
    inserted: ' "sorrow"',
  },
  {
    flake: 'gen-attrs-let',
    line: 9,
    like: 'dale',
    inserted: [
      '',
      '        "sorrow"',
    ],
  },
  {
    flake: 'import-hosts',
    file: 'hosts/default.nix',
    line: 9,
    like: 'yard',
    inserted: [
      '',
      '  sorrow = host "sorrow";',
    ],
  },
  {
    flake: 'import-outputs',
    file: 'outputs.nix',
    line: 6,
    like: 'beryl',
    inserted: [
      '',
      '    sorrow = nixpkgs.lib.nixosSystem { modules = [ ./hosts/sorrow ]; };',
    ],
  },
  {
    flake: 'inherit-from-import',
    file: 'nixos.nix',
    line: 7,
    like: 'flint',
    inserted: [
      '',
      '    "sorrow"',
    ],
  },
  {
    flake: 'joined-words',
    line: 21,
    like: 'clay',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          modules = [',
      '            ./hosts/sorrow-hardware.nix',
      '            self.disks.sorrow',
      '            ./modules/web-server.nix',
      '          ];',
      '        };',
    ],
  },
  {
    flake: 'let-hosts',
    line: 15,
    like: 'heron',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          inherit system;',
      '          modules = [ ./sorrow.nix ];',
      '        };',
    ],
  },
  {
    flake: 'let-inherit',
    line: 13,
    like: 'kite',
    inserted: [
      '',
      '        sorrow = mkSystem { host = "sorrow"; };',
    ],
  },
  {
    flake: 'let-merge',
    line: 10,
    like: 'mole',
    inserted: [
      '',
      '        sorrow = mkHost "sorrow";',
    ],
  },
  {
    flake: 'lib-merged',
    line: 8,
    like: 'leek',
    inserted: ' "sorrow"',
  },
  {
    flake: 'list-of-calls',
    line: 15,
    like: 'spit',
    inserted: [
      '',
      '        (host "sorrow" [ ])',
    ],
  },
  {
    flake: 'list-of-pairs',
    line: 14,
    like: 'knoll',
    inserted: [
      '',
      '        {',
      '          name = "sorrow";',
      '          value = nixpkgs.lib.nixosSystem { modules = [ ./sorrow.nix ]; };',
      '        }',
    ],
  },
  {
    flake: 'list-of-records',
    line: 9,
    like: 'moor',
    inserted: [
      '',
      '        { hostname = "sorrow"; arch = "x86_64"; user = "loch"; }',
    ],
  },
  {
    flake: 'list-to-attrs',
    line: 14,
    like: 'heath',
    inserted: [
      '',
      '            "sorrow"',
    ],
  },
  {
    flake: 'map-attrs',
    line: 19,
    like: 'raven',
    inserted: [
      '',
      '            sorrow = {',
      '              system = "x86_64-linux";',
      '              roles = [ "desktop" ];',
      '            };',
    ],
  },
  {
    flake: 'map-attrs-let',
    line: 9,
    like: 'wren',
    inserted: [
      '',
      '      hosts.sorrow.system = "x86_64-linux";',
    ],
  },
  {
    flake: 'map-attrs-prime',
    line: 9,
    like: 'ruby',
    inserted: [
      '',
      '        sorrow = { };',
    ],
  },
  {
    flake: 'merged-groups',
    line: 10,
    like: 'onyx',
    inserted: ' "sorrow"',
  },
  {
    flake: 'mixed-forms',
    line: 15,
    like: 'hare',
    inserted: [
      '',
      '        sorrow = mkHost "sorrow";',
    ],
  },
  {
    flake: 'nixos-system',
    line: 46,
    like: 'lap',
    inserted: [
      '',
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          system = "x86_64-linux";',
      '          specialArgs = {',
      '            inherit inputs;',
      '            hostname = "sorrow";',
      '          };',
      '          modules = [',
      '            # of every machine',
      '            ./common',
      '            home-manager.nixosModules.home-manager',
      '            ./hosts/sorrow/configuration.nix',
      '          ];',
      '        };',
    ],
  },
  {
    flake: 'one-line',
    line: 3,
    like: 'two',
    inserted: ' sorrow = mk "sorrow";',
  },
  {
    flake: 'own-function',
    line: 11,
    like: 'vale',
    inserted: ' "sorrow"',
  },
  {
    flake: 'own-lib',
    line: 7,
    like: 'rue',
    inserted: ' "sorrow"',
  },
  {
    flake: 'own-self',
    line: 5,
    like: 'dill',
    inserted: ' "sorrow"',
  },
  {
    flake: 'person',
    line: 10,
    like: 'rain',
    inserted: [
      '',
      '        sorrow = mkHost { hostname = "sorrow"; username = "rain"; };',
    ],
  },
  {
    flake: 'pipe-and-flip',
    line: 8,
    like: 'poplar',
    inserted: ' sorrow = [ ];',
  },
  {
    flake: 'plan',
    line: 21,
    like: 'griefling',
    inserted: [
      '',
      '        sorrow = mkHost { hostname = "sorrow"; };',
    ],
  },
  {
    flake: 'profile',
    line: 10,
    like: 'laptop',
    inserted: [
      '',
      '        sorrow = mkHost { hostname = "sorrow"; profile = "desktop"; };',
    ],
  },
  {
    flake: 'quoted',
    line: 11,
    like: 'web-2',
    inserted: [
      '',
      '        "sorrow" = system "sorrow";',
    ],
  },
  {
    flake: 'rec-set',
    line: 6,
    like: 'otter',
    inserted: [
      '',
      '      sorrow = nixpkgs.lib.nixosSystem { modules = [ ./sorrow ]; };',
    ],
  },
  {
    flake: 'self-inputs',
    line: 8,
    inserted: ['', '        "sorrow"'],
    like: 'elm',
  },
  {
    flake: 'simplest',
    line: 13,
    like: 'small',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem { modules = [ ./hosts/sorrow ]; };',
    ],
  },
  {
    flake: 'trailing-commas',
    line: 22,
    like: 'basil',
    inserted: [
      '',
      '        sorrow = mkHost { hostname = "sorrow"; };',
    ],
  },
  {
    flake: 'trailing-comments',
    line: 11,
    like: 'borea',
    inserted: [
      '',
      '        sorrow = mkHost "sorrow";',
    ],
  },
  {
    flake: 'unicode',
    line: 9,
    like: 'linde',
    inserted: ' sorrow = nixpkgs.lib.nixosSystem { modules = [ { environment.etc.motd.text = "Grüß Gott, sorrow 🌳"; } ]; };',
  },
  {
    flake: 'web',
    line: 13,
    like: 'web',
    inserted: [
      '',
      '        sorrow = nixpkgs.lib.nixosSystem {',
      '          modules = [',
      '            ./hosts/sorrow',
      '            ./modules/web-server.nix',
      '            { networking.fqdn = "sorrow.example.org"; }',
      '          ];',
      '        };',
    ],
  },
  {
    flake: 'with-lib',
    line: 10,
    like: 'quail',
    inserted: [
      '',
      '        sorrow = [ ./sorrow.nix ];',
    ],
  },
]

/** Flakes that list a directory: the line that does, and the directory. */
export const discoveries: [flake: string, line: number, directory: string, file?: string][] = [
  ['read-dir', 7, 'hosts'],
  ['read-dir-beside', 9, 'hosts'],
  ['read-dir-both', 7, 'hosts'],
  ['read-dir-filter', 6, 'machines'],
  ['read-dir-helper', 8, 'hosts'],
  ['read-dir-names', 6, 'hosts'],
  ['read-dir-nested', 10, 'systems/x86_64-linux'],
  ['read-dir-null', 7, 'hosts'],
  ['read-dir-optional', 6, 'hosts'],
  ['read-dir-pairs', 7, 'machines', 'lib/directories.nix'],
  ['read-dir-records', 7, 'hosts'],
  ['read-dir-self', 6, 'systems'],
  ['read-dir-to-list', 11, 'hosts'],
]

/** Flakes under `refused`: the message, in which `@` stands for the flake's directory. */
export const refusals: Record<string, string> = {
  'own-variables':
    'Cannot add `sorrow` to `@/hosts/garganey.nix` at line 3: `garganey` is made elsewhere or in pieces, so no copy of it is a host',
  'module-of-config':
    'Cannot add `sorrow` to `@/crake.nix` at line 3: `crake` is made elsewhere or in pieces, so no copy of it is a host',
  'folded-library':
    'Cannot add `sorrow` to `@/flake.nix` at line 11: the hosts are computed by `fleet.lib.compose { }`',
  'told-by-system':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.den.flakeModule`',
  'other-nixpkgs':
    'Cannot add `sorrow` to `@/flake.nix` at line 10: the hosts depend on `if self ? only then self.only else all`',
  'told-only-system':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.easy-hosts.flakeModule`',
  'told-other-system':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.easy-hosts.flakeModule`',
  'told-first-of-platform':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.easy-hosts.flakeModule`',
  'told-dotted':
    'Cannot add `sorrow` to `@/fleet.nix` at line 6: the hosts depend on `inputs.easy-hosts.flakeModule`',
  'told-elsewhere':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.easy-hosts.flakeModule`',
  'told-by-kind':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.ez-configs.flakeModule`',
  'told-by-names':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.easy-hosts.flakeModule`',
  'own-library':
    'Cannot add `sorrow` to `@/flake.nix` at line 11: the hosts are computed by `lib.mkFlake { channels-config.allowUnfree = true;…`',
  'clan-module':
    'Cannot add `sorrow` to `@/flake.nix` at line 10: the hosts depend on `crew.config.nixosConfigurations`',
  broken: 'Cannot parse `@/flake.nix`: syntax error at line 6',
  'broken-import': 'Cannot parse `@/hosts.nix`: syntax error at line 3',
  'computed-names': 'Cannot add `sorrow` to `@/flake.nix` at line 9: the hosts have computed names',
  clan: 'Cannot add `sorrow` to `@/flake.nix` at line 12: the hosts depend on `clan.config.nixosConfigurations`',
  condition:
    'Cannot add `sorrow` to `@/flake.nix` at line 9: the hosts depend on `if builtins.pathExists ./secrets then { crane = m…`',
  dynamic: 'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `domain.name`',
  'empty-set':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the set is empty, and no function is there to make a host of its name',
  encrypted: 'Cannot add `sorrow` to `@/flake.nix` at line 5: `@/secrets.nix` is no text',
  filtered:
    'Cannot add `sorrow` to `@/flake.nix` at line 13: the hosts depend on `lib.filterAttrs (name: _: builtins.pathExists ./${name})`',
  framework:
    'Cannot add `sorrow` to `@/flake.nix` at line 4: the hosts are computed by `inputs.blueprint { inherit inputs; systems = [ "x…`',
  inherited:
    'Cannot add `sorrow` to `@/flake.nix` at line 10: `merlin` is made elsewhere or in pieces, so no copy of it is a host',
  itself: 'Cannot add `sorrow` to `@/flake.nix` at line 5: the definition leads back to itself',
  json: 'Cannot add `sorrow` to `@/flake.nix` at line 6: the hosts are computed by `builtins.fromJSON (builtins.readFile ./hosts.json)`',
  'missing-import': 'Cannot add `sorrow` to `@/flake.nix` at line 5: `@/machines` does not exist',
  'no-outputs': 'Cannot add `sorrow` to `@/flake.nix` at line 1: there is no `outputs`',
  none: 'Cannot add `sorrow` to `@/flake.nix` at line 4: there is no `nixosConfigurations`',
  options:
    'Cannot add `sorrow` to `@/modules/hosts.nix` at line 4: the hosts depend on `config.fleet.hosts`',
  'other-flake':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.fleet.nixosConfigurations`',
  'other-library':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts are computed by `fleet.lib.hosts { inherit inputs; tern = { }; }`',
  'own-variable':
    'Cannot add `sorrow` to `@/flake.nix` at line 9: `egret` is made elsewhere or in pieces, so no copy of it is a host',
  loaded:
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts are computed by `haumea.lib.load { src = ./hosts; inputs = { inher…`',
  'method-name':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts are computed by `builtins.toString inputs.hosts`',
  'module-of-input':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.fleet.flakeModules.default`',
  'one-argument':
    'Cannot add `sorrow` to `@/flake.nix` at line 4: the hosts are computed by `inputs.unified.lib.mkFlake { inherit inputs; root…`',
  'own-mk-flake':
    'Cannot add `sorrow` to `@/flake.nix` at line 7: the hosts are computed by `lib.mkFlake inputs`',
  pieces:
    'Cannot add `sorrow` to `@/flake.nix` at line 5: `okra` is made elsewhere or in pieces, so no copy of it is a host',
  systems: 'Cannot add `sorrow` to `@/flake.nix` at line 6: `x86_64-linux` names a system, and no host',
  'variable-name':
    'Cannot add `sorrow` to `@/flake.nix` at line 9: `grebe` is made elsewhere or in pieces, so no copy of it is a host',
  'mapped-empty':
    'Cannot add `sorrow` to `@/flake.nix` at line 9: there is no host to copy',
  'empty-records':
    'Cannot add `sorrow` to `@/flake.nix` at line 9: it is empty, and nothing shows what a host there looks like',
  'named-in-a-file':
    'Cannot add `sorrow` to `@/flake.nix` at line 2: the hosts are computed by `inputs.fleet.lib.compose { inherit inputs; module…`',
  'auto-wired':
    'Cannot add `sorrow` to `@/flake.nix` at line 6: the hosts depend on `inputs.autowire.flakeModules.default`',
  'beside-an-option':
    'Cannot add `sorrow` to `@/modules/boats.nix` at line 5: the hosts depend on `config.fleet.boats`',
  'told-directory':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.wired.flakeModule`',
  'told-and-listed':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.simple.flakeModule`',
  'told-and-special':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.ez-configs.flakeModule`',
  'told-by-platform':
    'Cannot add `sorrow` to `@/flake.nix` at line 5: the hosts depend on `inputs.simple.flakeModule`',
  'flake-taken':
    'Cannot add `sorrow` to `@/flake.nix` at line 4: there is no `nixosConfigurations`',
  'module-without-arguments':
    'Cannot add `sorrow` to `@/modules/editor.nix` at line 1: there is no `nixosConfigurations`',
  nothing: 'Cannot add `sorrow` to `@/flake.nix` at line 1: the file is empty',
  'prefix-word':
    'Cannot add `sorrow` to `@/flake.nix` at line 2: the hosts are computed by `inputs.blueprint { inherit inputs; prefix = "nix/";…`',
  'directories-of-modules':
    'Cannot choose where to add `sorrow`: it has hosts in two places, `eider` at line 3 of `@/modules/hosts/eider/default.nix` and `smew` at line 3 of `@/modules/hosts/smew/default.nix`',
  'merged-modules':
    'Cannot choose where to add `sorrow`: it has hosts in two places, `siskin` at line 6 and `twite` at line 7',
  'own-nixos-system':
    'Cannot add `sorrow` to `@/flake.nix` at line 10: `plover` is made elsewhere or in pieces, so no copy of it is a host',
  'two-files':
    'Cannot choose where to add `sorrow`: it has hosts in two places, `brent` at line 3 of `@/modules/brent.nix` and `pochard` at line 3 of `@/modules/pochard.nix`',
  'two-places':
    'Cannot choose where to add `sorrow`: it has hosts in two places, `swift` at line 11 and `dove` at line 12',
}

/** Hints of the refusals; where one is missing here, it names an entry to write or `--like`. */
export const hints: Record<string, RegExp> = {
  'module-of-config': /^Write it by hand at line 4 of `@\/flake\.nix` around what the outputs are: let made = /,
  'folded-library': /^Write it by hand at line 8 in the set that begins there: nixosConfigurations\.sorrow = /,
  'told-by-system':
    /^Its hosts are most likely those in `den\.hosts\.x86_64-linux` at line 6 of `@\/flake\.nix`: write `x86_64-linux\.sorrow = …;` there, like `bittern`$/,
  'other-nixpkgs':
    /^Write it by hand: .* sorrow = inputs\.stable\.lib\.nixosSystem \{ /,
  'told-only-system':
    /^Its hosts are most likely what is in `@\/boxes`: write `sorrow` there, like `linnet`$/,
  'told-other-system': /^Write it by hand at line 4 .*: flake\.nixosConfigurations\.sorrow = /,
  'told-first-of-platform':
    /^Its hosts are most likely what is in `@\/hosts\/x86_64-nixos`: write `sorrow` there$/,
  'told-dotted':
    /^Its hosts are most likely those in `easy-hosts\.hosts` at line 7 of `@\/fleet\.nix`: write `hosts\.sorrow = …;` there, like `siskin`$/,
  'told-elsewhere':
    /^Its hosts are most likely what is in `@\/boxes`: write `sorrow` there, like `redpoll`$/,
  'told-by-kind':
    /^Its hosts are most likely what is in `@\/hosts\/nixos`: write `sorrow` there, like `brambling`$/,
  'told-by-names':
    /^Its hosts are most likely those in `easy-hosts\.hosts` at line 6 of `@\/flake\.nix`: write `sorrow` there, like `crossbill`$/,
  'own-library':
    /^Its hosts are most likely what is in `@\/nix\/systems\/x86_64-linux`: write `sorrow` there, like `bullfinch`$/,
  'auto-wired':
    /^Its hosts are most likely what is in `@\/configurations\/nixos`: write `sorrow` there, like `dotterel`$/,
  'told-directory':
    /^Its hosts are most likely what is in `@\/nix\/boxes`: write `sorrow\.nix` there, like `whimbrel\.nix`$/,
  'told-and-listed':
    /^Its hosts are most likely those in `simple\.hosts` at line 6 of `@\/flake\.nix`: write `hosts\.sorrow = …;` there, like `sanderling`$/,
  'told-and-special':
    /^Its hosts are most likely what is in `@\/nixos-configurations`: write `sorrow` there, like `turnstone`$/,
  'told-by-platform':
    /^Its hosts are most likely what is in `@\/hosts\/x86_64-nixos`: write `sorrow` there, like `avocet`$/,
  'named-in-a-file':
    /^Its hosts are listed in `@\/fleet\/all\.nix`: write `sorrow` there as well, like `merganser` at line 3$/,
  json: /^Its hosts are in `@\/hosts\.json`: write `sorrow` there, like the others$/,
  'module-of-input':
    /^Its hosts are most likely those in `fleet\.hosts` at line 4 of `@\/flake\.nix`: write `fleet\.hosts\.sorrow = …;` there, like `thyme`$/,
  'clan-module':
    /^Its hosts are most likely those in `machines` at line 2 of `@\/crew\.nix`: write `machines\.sorrow = …;` there, like `moth`$/,
  'own-nixos-system':
    /^Write it by hand .*: sorrow = nixpkgs\.lib\.nixosSystem \{ modules = /,
  'variable-name':
    /^Write it by hand in the set that begins there: sorrow = nixpkgs\.lib\.nixosSystem \{ modules = \[ \.\/machine\/sorrow\.nix \]; \};$/,
  pieces: /^Write it by hand at line 9: nixosConfigurations = … \/\/ \{ sorrow = /,
  'other-flake':
    /^Write it by hand in place of what is inherited there: nixosConfigurations = inputs\.fleet\.nixosConfigurations \/\/ /,
  clan: /^Its hosts are most likely what is in `@\/machines`: write `sorrow` there, like `heron`$/,
  framework:
    /^Its hosts are most likely what is in `@\/hosts`: write `sorrow` there, like `yarrow`$/,
  'one-argument':
    /^Its hosts are most likely what is in `@\/configurations\/nixos`: write `sorrow` there, like `ruff`$/,
  'beside-an-option':
    /^Write it by hand where the others are in `fleet\.boats`: fleet\.boats\.sorrow = …$/,
  options:
    /^Write it by hand where the others are in `fleet\.hosts`: fleet\.hosts\.sorrow = …$/,
  'prefix-word':
    /^Its hosts are most likely what is in `@\/nix\/hosts`: write `sorrow` there, like `stint`$/,
  loaded:
    /^Its hosts are most likely what is in `@\/hosts`: write `sorrow\.nix` there, like `dunlin\.nix`$/,
}

/** Refused flakes whose inputs have stand-ins: nix evaluates the entry from the hint, and it must make a host. */
export const writtenByHand = [
  ...['computed-names', 'condition', 'empty-records', 'empty-set', 'filtered', 'flake-taken', 'folded-library', 'module-of-config', 'own-variables'],
  ...['inherited', 'mapped-empty', 'module-without-arguments', 'nothing', 'named-in-a-file', 'no-outputs', 'none', 'other-flake', 'other-library'],
  'other-nixpkgs',
  ...['own-nixos-system', 'own-variable', 'pieces', 'systems', 'two-places', 'variable-name'],
]

/** Refused flakes whose frameworks have stand-ins: nix evaluates them with the hint followed; that must make a host. */
export const readByFrameworks = [
  ...['own-library', 'told-and-listed', 'told-and-special', 'told-by-kind', 'told-by-names'],
  'told-by-system',
  ...['told-by-platform', 'told-dotted', 'told-elsewhere', 'told-first-of-platform'],
  ...['told-only-system', 'told-other-system'],
]

/** Where scaffold-host writes `sorrow`, for flakes that do not read it from `hosts/sorrow`. */
export const ownFiles: Record<string, string> = {
  'dotted': 'sorrow.nix',
  'evaluated-module': 'hosts/sorrow.nix',
  'hive': 'nodes/sorrow/default.nix',
  'import-hosts': 'hosts/sorrow/default.nix',
  'list-of-records': 'machines/sorrow/default.nix',
  'nixos-system': 'hosts/sorrow/configuration.nix',
  'own-files': 'machines/sorrow/configuration.nix',
  'own-patch': 'hosts/sorrow/default.nix',
  'plan': 'hosts/sorrow/default.nix',
  'read-dir': 'hosts/sorrow/default.nix',
  'read-dir-beside': 'hosts/sorrow/configuration.nix',
  'read-dir-both': 'hosts/sorrow/default.nix',
  'read-dir-filter': 'machines/sorrow/default.nix',
  'read-dir-helper': 'hosts/sorrow.nix',
  'read-dir-nested': 'systems/x86_64-linux/sorrow/default.nix',
  'read-dir-optional': 'hosts/sorrow/default.nix',
  'read-dir-pairs': 'machines/sorrow/default.nix',
  'read-dir-records': 'hosts/sorrow/default.nix',
  'read-dir-self': 'systems/sorrow/configuration.nix',
  'record-files': 'hosts/sorrow.nix',
  'refused/auto-wired': 'configurations/nixos/sorrow/default.nix',
  'refused/own-library': 'nix/systems/x86_64-linux/sorrow/default.nix',
  'refused/told-by-kind': 'hosts/nixos/sorrow/default.nix',
  'refused/told-dotted': 'machines/sorrow/default.nix',
  'refused/told-elsewhere': 'boxes/sorrow/default.nix',
  'refused/told-first-of-platform': 'hosts/x86_64-nixos/sorrow/default.nix',
  'refused/told-only-system': 'boxes/sorrow/default.nix',
  'refused/told-by-platform': 'hosts/x86_64-nixos/sorrow/default.nix',
  'refused/clan': 'machines/sorrow/configuration.nix',
  'refused/directories-of-modules': 'hosts/sorrow/default.nix',
  'refused/framework': 'hosts/sorrow/configuration.nix',
  'refused/loaded': 'hosts/sorrow.nix',
  'refused/module-of-input': 'hosts/sorrow/default.nix',
  'refused/prefix-word': 'nix/hosts/sorrow/configuration.nix',
  'refused/told-directory': 'nix/boxes/sorrow.nix',
  'refused/variable-name': 'machine/sorrow.nix',
  'shared-names': 'machines/sorrow.nix',
  'told-its-name': 'machine/sorrow/default.nix',
}
