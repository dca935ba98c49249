# Small modules evaluated by two module systems: `lib` is one or the other, `shared` the path of
# shared.nix. The result is a set of { value; } or { failed = true; } by name, which must be the same for both.
{ lib, shared }:
let
  inherit (lib)
    evalModules
    mkAfter
    mkBefore
    mkDefault
    mkForce
    mkIf
    mkMerge
    mkOption
    mkOrder
    mkOverride
    types
    ;
  run = modules: (evalModules { inherit modules; }).config;
  declare = type: { options.x = mkOption { inherit type; }; };
  with' = type: defs: (run ([ (declare type) ] ++ map (x: { inherit x; }) defs)).x;
  ints = types.listOf types.int;
  strs = types.listOf types.str;
  outcome =
    _: v:
    let
      r = builtins.tryEval (builtins.deepSeq v v);
    in
    if r.success then { inherit (r) value; } else { failed = true; };
in
builtins.mapAttrs outcome {
  # priorities
  priorityForce = with' types.int [
    1
    (mkForce 2)
    (mkDefault 3)
  ];
  priorityDefault = with' types.int [ (mkDefault 3) ];
  priorityOption =
    (run [
      {
        options.x = mkOption {
          type = types.int;
          default = 7;
        };
      }
    ]).x;
  priorityDefaultBeatsOption =
    (run [
      {
        options.x = mkOption {
          type = types.int;
          default = 7;
        };
      }
      { x = mkDefault 8; }
    ]).x;
  priorityOverride = with' types.int [
    (mkOverride 40 9)
    (mkForce 2)
  ];
  priorityOptionDefault = with' strs [
    (lib.mkOptionDefault [ "a" ])
    (mkDefault [ "b" ])
  ];
  priorityVm = with' types.int [
    (lib.mkVMOverride 9)
    (mkForce 2)
  ];
  priorityNumbers =
    map
      (
        d:
        (evalModules {
          modules = [
            (declare types.int)
            { x = d; }
          ];
        }).options.x.highestPrio
      )
      [
        1
        (mkForce 1)
        (mkDefault 1)
        (lib.mkOptionDefault 1)
        (mkOverride 77 1)
      ];
  priorityListDefaultIsDropped = with' strs [
    (mkDefault [ "dropped" ])
    [ ]
  ];
  priorityForceEmpty = with' strs [
    [ "a" ]
    (mkForce [ ])
  ];
  priorityOnTree =
    (run [
      {
        options.a.x = mkOption { type = types.int; };
        options.a.y = mkOption {
          type = types.int;
          default = 5;
        };
      }
      { a = mkForce { x = 1; }; }
      { a.x = 2; }
    ]).a;
  priorityOnAttrsOf = with' (types.attrsOf types.int) [
    { a = 1; }
    (mkForce { b = 2; })
  ];
  priorityInAttrsOf = with' (types.attrsOf types.int) [
    {
      a = mkDefault 1;
      b = mkForce 3;
    }
    {
      a = 2;
      b = 4;
    }
  ];

  # order of lists
  orderPlain = with' ints [
    [ 1 ]
    [ 2 ]
    [ 3 ]
  ];
  orderBeforeAfter = with' ints [
    (mkAfter [ 1 ])
    [ 2 ]
    (mkBefore [ 3 ])
    [ 4 ]
    (mkOrder 1200 [ 5 ])
    (mkOrder 900 [ 6 ])
  ];
  orderImports =
    (run [
      (declare ints)
      {
        imports = [
          { x = [ 1 ]; }
          {
            imports = [ { x = [ 2 ]; } ];
            x = [ 3 ];
          }
        ];
        x = [ 4 ];
      }
      { x = [ 5 ]; }
    ]).x;
  orderDeep =
    (run [
      {
        imports = [
          (declare ints)
          {
            imports = [
              {
                imports = [ { x = [ 1 ]; } ];
                x = [ 2 ];
              }
              { x = [ 3 ]; }
            ];
            x = [ 4 ];
          }
          {
            imports = [ { x = [ 5 ]; } ];
            x = [ 6 ];
          }
        ];
        x = [ 7 ];
      }
      { x = [ 8 ]; }
    ]).x;
  orderMerge = with' ints [
    (mkMerge [
      [ 1 ]
      (mkIf true [ 2 ])
      (mkIf false [ 3 ])
      (mkBefore [ 4 ])
    ])
    [ 5 ]
  ];
  orderDefault =
    (run [
      {
        options.x = mkOption {
          type = ints;
          default = [ 1 ];
        };
      }
      { x = lib.mkOptionDefault [ 2 ]; }
    ]).x;
  orderForceBefore = with' ints [
    (mkForce (mkBefore [ 1 ]))
    (mkForce [ 2 ])
  ];
  orderForceBefore2 = with' ints [
    (mkForce [ 2 ])
    (mkForce (mkBefore [ 1 ]))
  ];
  orderLines = with' types.lines [
    "a"
    (mkAfter "b")
    (mkBefore "c")
  ];
  orderSubmodule =
    (with' (types.submodule { options.l = mkOption { type = ints; }; }) [
      { l = [ 1 ]; }
      { l = [ 2 ]; }
    ]).l;
  orderSubmoduleOwn =
    (with'
      (types.submodule {
        options.l = mkOption {
          type = ints;
          default = [ 0 ];
        };
        config.l = [ 9 ];
      })
      [
        { l = [ 1 ]; }
        { l = [ 2 ]; }
      ]
    ).l;
  orderAttrsOfSub = (
    with' (types.attrsOf (types.submodule { options.l = mkOption { type = ints; }; })) [
      { a.l = [ 1 ]; }
      {
        a.l = mkBefore [ 2 ];
        b.l = [ 3 ];
      }
      { a.l = [ 4 ]; }
    ]
  );
  orderExtend =
    (
      (evalModules {
        modules = [
          (declare ints)
          { x = [ 1 ]; }
        ];
      }).extendModules
      { modules = [ { x = [ 2 ]; } ]; }
    ).config.x;

  # conditions
  ifElement = with' ints [
    [
      1
      (mkIf false 2)
      (mkIf true 3)
    ]
  ];
  ifAttr = with' (types.attrsOf types.int) [
    {
      a = mkIf false 1;
      b = mkIf true 2;
    }
  ];
  ifWhole = with' types.int [
    (mkIf false 1)
    (mkIf true 2)
  ];
  ifNested = with' types.int [
    (mkIf true (mkMerge [
      (mkIf false 1)
      (mkDefault 2)
    ]))
  ];
  ifReadsConfig = run [
    (
      { config, ... }:
      {
        options.on = mkOption {
          type = types.bool;
          default = false;
        };
        options.a.b.c = mkOption {
          type = types.int;
          default = 0;
        };
        config = mkIf config.on { a.b.c = 1; };
      }
    )
    { on = true; }
  ];
  ifReadsSibling = run [
    (
      { config, ... }:
      {
        options.a.on = mkOption {
          type = types.bool;
          default = true;
        };
        options.a.v = mkOption {
          type = strs;
          default = [ ];
        };
        config.a = mkMerge [
          (mkIf config.a.on { v = [ "x" ]; })
          (mkIf (!config.a.on) { v = [ "y" ]; })
        ];
      }
    )
  ];
  ifNotBool = with' types.int [ (mkIf "yes" 1) ];
  ifAllOff = with' types.int [ (mkIf false 1) ];
  ifAllOffList = with' ints [ (mkIf false [ 1 ]) ];
  ifModule =
    (run [
      (declare types.int)
      (mkIf true { x = 1; })
    ]).x;
  ifForceInside = with' types.int [
    (mkForce (mkIf true 2))
    1
  ];
  mergeModule =
    (run [
      {
        config = mkMerge [ { x = 1; } ];
        options.x = mkOption { type = types.int; };
      }
    ]).x;

  # types
  typeWrong = map (d: (builtins.tryEval (with' d.t [ d.v ])).success) [
    {
      t = types.int;
      v = "1";
    }
    {
      t = types.str;
      v = 1;
    }
    {
      t = types.bool;
      v = 1;
    }
    {
      t = strs;
      v = "a";
    }
    {
      t = types.enum [
        "a"
        "b"
      ];
      v = "c";
    }
    {
      t = types.port;
      v = 65536;
    }
    {
      t = types.port;
      v = -1;
    }
    {
      t = types.ints.positive;
      v = 0;
    }
    {
      t = types.ints.unsigned;
      v = -1;
    }
    {
      t = types.ints.between 1 3;
      v = 4;
    }
    {
      t = types.nonEmptyStr;
      v = " \n";
    }
    {
      t = types.singleLineStr;
      v = "a\nb";
    }
    {
      t = types.strMatching "[a-z]+";
      v = "A";
    }
    {
      t = types.path;
      v = "rel/ative";
    }
    {
      t = types.package;
      v = "x";
    }
    {
      t = types.attrs;
      v = [ ];
    }
    {
      t = types.float;
      v = 1;
    }
    {
      t = types.nullOr types.int;
      v = "x";
    }
    {
      t = types.either types.int types.str;
      v = true;
    }
    {
      t = types.nonEmptyListOf types.int;
      v = [ ];
    }
    {
      t = types.ints.u8;
      v = 256;
    }
    {
      t = types.ints.s8;
      v = -129;
    }
    {
      t = types.functionTo types.int;
      v = 1;
    }
  ];
  typeRight = map (d: with' d.t [ d.v ]) [
    {
      t = types.int;
      v = 1;
    }
    {
      t = types.port;
      v = 65535;
    }
    {
      t = types.enum [
        1
        "b"
      ];
      v = 1;
    }
    {
      t = types.singleLineStr;
      v = "a\n";
    }
    {
      t = types.path;
      v = "/a b";
    }
    {
      t = types.nullOr types.int;
      v = null;
    }
    {
      t = types.number;
      v = 1.5;
    }
    {
      t = types.commas;
      v = "a";
    }
    {
      t = types.oneOf [
        types.int
        types.str
        strs
      ];
      v = [ "a" ];
    }
    {
      t = types.raw;
      v = {
        a = 1;
      };
    }
    {
      t = types.ints.s8;
      v = -128;
    }
    {
      t = types.externalPath;
      v = "/etc/x";
    }
    {
      t = types.boolByOr;
      v = false;
    }
    {
      t = types.passwdEntry types.str;
      v = "a";
    }
  ];
  typeElementWrong = with' strs [
    [
      "a"
      1
    ]
  ];
  typeAttrWrong = with' (types.attrsOf types.int) [ { a = "x"; } ];
  typePasswd = with' (types.passwdEntry types.str) [ "a:b" ];
  conflictStr = with' types.str [
    "a"
    "b"
  ];
  agreeStr = with' types.str [
    "a"
    "a"
  ];
  conflictBool = with' types.bool [
    true
    false
  ];
  boolByOr = with' types.boolByOr [
    true
    false
  ];
  nullConflict = with' (types.nullOr types.int) [
    null
    1
  ];
  nullAgree = with' (types.nullOr types.int) [
    null
    null
  ];
  nullEmpty = (run [ (declare (types.nullOr types.int)) ]).x;
  listEmpty = (run [ (declare strs) ]).x;
  attrsEmpty = (run [ (declare (types.attrsOf types.int)) ]).x;
  noDefault = (run [ (declare types.int) ]).x;
  rawTwice = with' types.raw [
    1
    1
  ];
  uniqTwice = with' (types.uniq types.int) [
    1
    1
  ];
  uniqOnce = with' (types.uniq types.int) [ 1 ];
  commas = with' types.commas [
    "a"
    "b"
  ];
  separated = with' (types.separatedString "+") [
    "a"
    "b"
  ];
  enumAgree = with' (types.enum [ "a" ]) [
    "a"
    "a"
  ];
  eitherMixed = with' (types.either types.str strs) [
    "a"
    [ "b" ]
  ];
  eitherLists = with' (types.either types.str strs) [
    [ "a" ]
    [ "b" ]
  ];
  coerced = with' (types.coercedTo types.int toString types.str) [ 3 ];
  coercedList = with' (types.coercedTo types.str lib.singleton strs) [
    "a"
    [ "b" ]
  ];
  coercedWrong = with' (types.coercedTo types.int toString types.str) [ true ];
  attrsShallow = with' types.attrs [
    { a.b = 1; }
    { a.c = 2; }
  ];
  anythingDeep = with' types.anything [
    {
      a.b = 1;
      c = [ 1 ];
    }
    { a.d = 2; }
  ];
  anythingListConflict = with' types.anything [
    [ 1 ]
    [ 2 ]
  ];
  anythingTypeConflict = with' types.anything [
    { a = 1; }
    { a = "1"; }
  ];
  anythingIf = with' types.anything [
    {
      a = mkIf false 1;
      b = mkDefault 2;
    }
    { b = 3; }
  ];
  unspecifiedLists = with' types.unspecified [
    [ 1 ]
    [ 2 ]
  ];
  unspecifiedSets = with' types.unspecified [
    { a.b = 1; }
    { a.c = 1; }
  ];
  unspecifiedStrings = with' types.unspecified [
    "a"
    "b"
  ];
  untyped =
    (run [
      { options.x = mkOption { }; }
      { x = [ 1 ]; }
      { x = [ 2 ]; }
    ]).x;
  functionTo =
    (with' (types.functionTo strs) [
      (a: [ a ])
      (a: [ "${a}!" ])
    ])
      "z";
  lazyAttrs = builtins.attrNames (
    with' (types.lazyAttrsOf types.int) [
      {
        a = mkIf false 1;
        b = throw "not read";
      }
    ]
  );
  lazyAttrsRead = (with' (types.lazyAttrsOf types.int) [ { a = mkIf false 1; } ]).a;
  lazyAttrsEmpty = (with' (types.lazyAttrsOf ints) [ { a = mkIf false [ 1 ]; } ]).a;
  listOfSub =
    with'
      (types.listOf (
        types.submodule {
          options.n = mkOption {
            type = types.int;
            default = 4;
          };
        }
      ))
      [
        [
          { }
          { n = 1; }
        ]
      ];
  addCheck = with' (types.addCheck types.int (n: n > 3)) [ 2 ];
  numbersBetween = with' (types.numbers.between 0 1) [ 0.5 ];

  # submodules
  subName =
    with'
      (types.attrsOf (
        types.submodule (
          { name, ... }:
          {
            options.n = mkOption {
              type = types.str;
              default = name;
            };
          }
        )
      ))
      [
        {
          a = { };
          b.n = "z";
        }
      ];
  subConfig =
    with'
      (types.attrsOf (
        types.submodule (
          { config, ... }:
          {
            options.a = mkOption {
              type = types.int;
              default = 1;
            };
            options.b = mkOption { type = types.int; };
            config.b = config.a + 1;
          }
        )
      ))
      [
        {
          k = { };
          l.a = 5;
        }
      ];
  subFunction =
    with'
      (types.submodule {
        options.a = mkOption {
          type = types.int;
          default = 1;
        };
        options.b = mkOption { type = types.int; };
      })
      [
        (
          { config, ... }:
          {
            b = config.a;
          }
        )
      ];
  subUnknown = with' (types.submodule {
    options.a = mkOption {
      type = types.int;
      default = 1;
    };
  }) [ { z = 1; } ];
  subFreeform =
    with'
      (types.submodule {
        freeformType = types.attrsOf types.int;
        options.a = mkOption {
          type = types.int;
          default = 1;
        };
      })
      [
        {
          z = 1;
          y = mkIf false 2;
        }
      ];
  subFreeformWrong = with' (types.submodule { freeformType = types.attrsOf types.int; }) [
    { z = "a"; }
  ];
  subFreeformAnything =
    with'
      (types.submodule {
        freeformType = types.attrsOf types.anything;
        options.t.a = mkOption {
          type = types.int;
          default = 1;
        };
      })
      [
        {
          t.b = 1;
          u.v = 2;
        }
        { u.w = 3; }
      ];
  subEmpty =
    (run [
      (declare (
        types.submodule {
          options.a = mkOption {
            type = types.int;
            default = 1;
          };
        }
      ))
    ]).x;
  subForce =
    with'
      (types.attrsOf (
        types.submodule {
          options.a = mkOption {
            type = types.int;
            default = 1;
          };
        }
      ))
      [
        { k.a = mkForce 2; }
        { k.a = 3; }
      ];
  subDeclaredTwice =
    (run [
      {
        options.x = mkOption {
          type = types.submodule {
            options.a = mkOption {
              type = ints;
              default = [ 1 ];
            };
            config.a = [ 2 ];
          };
          default = { };
        };
      }
      {
        options.x = mkOption {
          type = types.submodule {
            options.b = mkOption {
              type = types.int;
              default = 3;
            };
            config.a = [ 4 ];
          };
        };
      }
      { x.a = [ 5 ]; }
    ]).x;
  subNested =
    (run [
      {
        options.x = mkOption {
          type = types.submodule {
            options.a = mkOption {
              type = types.int;
              default = 1;
            };
          };
          default = { };
        };
      }
      {
        options.x.b = mkOption {
          type = types.int;
          default = 2;
        };
      }
    ]).x;
  subWithArgs =
    (run [
      (declare (
        types.submoduleWith {
          specialArgs.extra = 3;
          modules = [
            (
              { extra, ... }:
              {
                options.a = mkOption { default = extra; };
              }
            )
          ];
        }
      ))
      { x = { }; }
    ]).x;

  # modules
  moduleArgs =
    (run [
      (
        { pkgs, ... }:
        {
          options.x = mkOption { default = pkgs.name; };
        }
      )
      { _module.args.pkgs.name = "p"; }
    ]).x;
  moduleSpecial =
    (evalModules {
      specialArgs.who = "me";
      modules = [
        (
          { who, ... }:
          {
            imports = [ { options.x = mkOption { default = who; }; } ];
          }
        )
      ];
    }).config.x;
  moduleSamePath =
    (run [
      shared
      shared
      { imports = [ shared ]; }
    ]).seen;
  moduleSameKey =
    (run [
      (declare ints)
      {
        key = "k";
        x = [ 1 ];
      }
      {
        key = "k";
        x = [ 2 ];
      }
    ]).x;
  moduleDisabled =
    (run [
      (declare ints)
      {
        key = "k";
        x = [ 1 ];
      }
      {
        x = [ 2 ];
        disabledModules = [ { key = "k"; } ];
      }
    ]).x;
  moduleDisabledPath =
    (run [
      (declare ints)
      {
        disabledModules = [ shared ];
        imports = [ shared ];
        x = [ 1 ];
      }
    ]) ? seen;
  moduleExtraAttr = run [
    {
      config = { };
      foo = 1;
    }
  ];
  moduleList = run [ { imports = [ [ { } ] ]; } ];
  moduleOptionsRead =
    (run [
      (
        { options, ... }:
        {
          options.x = mkOption { default = options ? y; };
        }
      )
      { options.y = mkOption { default = 1; }; }
    ]).x;
  undeclared = run [ { x = 1; } ];
  undeclaredDeep =
    (run [
      { options.a.b = mkOption { default = 1; }; }
      { a.c = 1; }
    ]).a.b;
  undeclaredUnchecked =
    (run [
      {
        options.a.b = mkOption { default = 1; };
        _module.check = false;
      }
      { a.c = 1; }
    ]).a;
  undeclaredOff =
    (run [
      { options.a = mkOption { default = 1; }; }
      (mkIf false { zz = 1; })
    ]).a;
  freeformRoot = run [
    {
      freeformType = types.attrsOf types.int;
      options.a = mkOption {
        type = types.str;
        default = "s";
      };
    }
    { b = 1; }
    {
      b = mkForce 2;
      c = mkIf false 3;
    }
  ];
  declaredTwice =
    (run [
      (declare types.int)
      (declare types.str)
      { x = 1; }
    ]).x;
  declaredTwiceSame =
    (run [
      (declare types.int)
      (declare types.int)
      { x = 1; }
    ]).x;
  declaredTwiceDefault =
    (run [
      { options.x = mkOption { default = 1; }; }
      { options.x = mkOption { default = 1; }; }
    ]).x;
  declaredEnumTwice =
    (run [
      (declare (types.enum [ "a" ]))
      (declare (types.enum [ "b" ]))
      { x = "b"; }
    ]).x;
  declaredParent =
    (run [
      (declare types.int)
      { options.x.y = mkOption { }; }
      { x = 1; }
    ]).x;
  declaredAttrsTwice =
    (run [
      (declare (types.attrsOf (types.enum [ "a" ])))
      (declare (types.attrsOf (types.enum [ "b" ])))
      { x.k = "b"; }
    ]).x;
  readOnly =
    (run [
      {
        options.x = mkOption {
          readOnly = true;
          type = types.int;
        };
      }
      { x = 1; }
      { x = 1; }
    ]).x;
  readOnlyOnce =
    (run [
      {
        options.x = mkOption {
          readOnly = true;
          type = types.int;
        };
      }
      { x = 1; }
    ]).x;
  apply =
    (run [
      {
        options.x = mkOption {
          type = types.int;
          apply = n: n * 2;
        };
      }
      { x = 4; }
    ]).x;
  enableOption = (run [ { options.x = lib.mkEnableOption "x"; } ]).x;
  renamed = (
    run [
      { options.new.x = mkOption { type = types.int; }; }
      (lib.mkAliasOptionModule [ "old" "x" ] [ "new" "x" ])
      { old.x = 5; }
    ]
  );
  renamedDefault = (
    run [
      {
        options.new = mkOption {
          type = types.int;
          default = 1;
        };
      }
      (lib.mkAliasOptionModule [ "old" ] [ "new" ])
      {
        old = mkDefault 5;
        new = 6;
      }
    ]
  );
  isDefined =
    let
      o = (evalModules { modules = [ (declare types.int) ]; }).options;
    in
    o.x.isDefined;
  files =
    (evalModules {
      modules = [
        (declare types.int)
        {
          _file = "here.nix";
          x = 1;
        }
      ];
    }).options.x.files;
  definitions =
    (evalModules {
      modules = [
        (declare ints)
        {
          _file = "a.nix";
          x = [ 1 ];
        }
        {
          _file = "b.nix";
          x = mkIf true [ 2 ];
        }
      ];
    }).options.x.definitionsWithLocations;
  deferred =
    let
      m = with' types.deferredModule [
        { a = 1; }
        (
          { ... }:
          {
            b = 2;
          }
        )
      ];
    in
    run [
      {
        options.a = mkOption { };
        options.b = mkOption { };
      }
      m
    ];

  # helpers
  strings = [
    (lib.splitString "." "a.b..c")
    (lib.trim " \n a b\t")
    (lib.toInt "-42")
    (lib.hasInfix "b" "abc")
    (lib.escapeShellArg "a b'c")
    (lib.escapeShellArg "a-b")
    (lib.escapeShellArg "")
    (lib.concatMapStringsSep "," (x: x + "!") [
      "a"
      "b"
    ])
    (lib.removePrefix "a" "ab")
    (lib.removeSuffix "b" "ab")
    (lib.hasSuffix "bc" "abc")
    (lib.fixedWidthNumber 4 42)
    (lib.toUpper "abc1")
    (lib.strings.escapeNixString "a\${b}\"")
    (lib.optionalString false "x")
    (lib.concatLines [
      "a"
      "b"
    ])
    (lib.versionAtLeast "2.10" "2.9")
    (lib.escapeRegex "a.b(c)")
    (lib.concatImapStringsSep "-" (i: s: "${toString i}${s}") [
      "a"
      "b"
    ])
    (lib.stringToCharacters "abc")
    (lib.boolToString true)
    (lib.replaceString "a" "b" "aa")
    (lib.toSentenceCase "abc")
    (lib.strings.escapeNixIdentifier "a.b")
    (lib.escapeXML "<a&'\">")
    (lib.join "," [
      "a"
      "b"
    ])
    (lib.intersperse "," [
      "a"
      "b"
      "c"
    ])
  ];
  lists = [
    (lib.unique [
      1
      2
      1
    ])
    (lib.last [
      1
      2
    ])
    (lib.init [
      1
      2
    ])
    (lib.take 5 [
      1
      2
    ])
    (lib.drop 1 [
      1
      2
    ])
    (lib.drop 5 [ 1 ])
    (lib.range 2 4)
    (lib.range 4 2)
    (lib.flatten [
      1
      [
        2
        [ 3 ]
      ]
    ])
    (lib.subtractLists [ 1 ] [ 1 2 ])
    (lib.intersectLists [ 1 2 ] [ 2 3 ])
    (lib.imap1 (i: v: i + v) [
      10
      20
    ])
    (lib.foldr (a: b: a + b) "z" [
      "x"
      "y"
    ])
    (lib.findFirst (x: x > 1) 0 [
      1
      2
      3
    ])
    (lib.zipLists [ 1 2 ] [ 3 4 5 ])
    (lib.reverseList [
      1
      2
      3
    ])
    (lib.sublist 1 1 [
      1
      2
      3
    ])
    (lib.replicate 2 "a")
    (lib.count (x: x > 1) [
      1
      2
      3
    ])
    (lib.optional true 1)
    (lib.optionals false [ 1 ])
    (lib.partition (x: x > 1) [
      1
      2
    ])
    (lib.toList 1)
    (lib.sortOn (x: 0 - x) [
      1
      3
      2
    ])
    (lib.naturalSort [
      "b"
      "a"
    ])
    (lib.allUnique [
      1
      1
    ])
    (lib.remove 1 [
      1
      2
      1
    ])
    (lib.findSingle (x: x == 1) "none" "many" [
      1
      1
    ])
    (lib.mutuallyExclusive [ 1 ] [ 2 ])
    (lib.toposort (a: b: a < b) [
      3
      1
      2
    ]).result
    (
      (lib.toposort (a: b: true) [
        1
        2
      ]) ? cycle
    )
    (lib.toposort (a: b: lib.hasPrefix a b) [
      "ab"
      "x"
      "a"
    ]).result
  ];
  attrsets = [
    (lib.recursiveUpdate
      {
        a.b = 1;
        a.c = [ 1 ];
      }
      {
        a.c = 2;
        d = 3;
      }
    )
    (lib.filterAttrs (n: v: v > 1) {
      a = 1;
      b = 2;
    })
    (lib.mapAttrs' (n: v: lib.nameValuePair "${n}x" v) { a = 1; })
    (lib.attrByPath [ "a" "b" ] 0 { a.b = 1; })
    (lib.attrByPath [ "a" "c" ] 0 { a.b = 1; })
    (lib.setAttrByPath [ "a" "b" ] 1)
    (lib.hasAttrByPath [ "a" "b" ] { a.b = 1; })
    (lib.genAttrs [ "a" ] (n: n))
    (lib.mapAttrsToList (n: v: n + v) { a = "1"; })
    (lib.zipAttrs [
      { a = 1; }
      { a = 2; }
    ])
    (lib.foldlAttrs
      (
        acc: n: v:
        acc + v
      )
      0
      {
        a = 1;
        b = 2;
      }
    )
    (lib.concatMapAttrs (n: v: { ${n + "1"} = v; }) { a = 1; })
    (lib.mapAttrsRecursive (p: v: lib.concatStringsSep "." p) { a.b = 1; })
    (lib.collect builtins.isInt {
      a.b = 1;
      c = 2;
    })
    (lib.getAttrs [ "a" ] {
      a = 1;
      b = 2;
    })
    (lib.mergeAttrsList [
      { a = 1; }
      { b = 2; }
    ])
    (lib.attrsToList { a = 1; })
    (lib.optionalAttrs false { a = 1; })
    (lib.foldAttrs (a: b: a + b) 0 [
      { a = 1; }
      { a = 2; }
    ])
  ];
  paths = [
    (lib.getExe {
      type = "derivation";
      name = "foo-1.0";
      pname = "foo";
      outPath = "/x";
      meta.mainProgram = "bar";
    })
    (lib.getExe' {
      type = "derivation";
      outPath = "/x";
    } "b")
    (lib.makeBinPath [
      { outPath = "/a"; }
      { outPath = "/b"; }
    ])
    (lib.generators.toKeyValue { } {
      a = 1;
      b = true;
    })
    (lib.generators.toINI { } {
      s = {
        a = "x";
        b = false;
      };
      t.c = 1;
    })
    (lib.pipe 1 [
      (x: x + 1)
      (x: x * 3)
    ])
    (lib.strings.getName "foo-1.2")
  ];
}
