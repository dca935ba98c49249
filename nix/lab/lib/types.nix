# Option types as in nixpkgs' `lib.types`, plus `shape`, the type of the NixOS options that the lab
# does not declare. A type is { check; merge = loc: defs: value; emptyValue; … } where `defs` is a
# non-empty list of { file; value; } that already passed mkIf, mkOverride and mkOrder.
{ lib }:
let
  inherit (lib)
    all
    concatLists
    concatMap
    concatMapStringsSep
    concatStringsSep
    elem
    evalModules
    filter
    filterAttrs
    foldl'
    functionArgs
    head
    imap1
    isAttrs
    isBool
    isDerivation
    isFloat
    isFunction
    isInt
    isList
    isString
    isStringLike
    last
    length
    mapAttrs
    match
    mergeDefinitions
    mkOptionType
    showDefs
    showFiles
    showOption
    showValue
    substring
    tail
    toList
    types
    typeOf
    zipAttrsWith
    ;

  values = map (def: def.value);
  fail =
    what: loc: defs:
    throw "The option `${showOption loc}' ${what}. Definition values:${showDefs defs}";

  filesOf = defs: showFiles (map (def: def.file) defs);

  mergeOne =
    message: loc: defs:
    if length defs == 1 then
      (head defs).value
    else
      fail "is defined multiple times while it's expected to be unique.\n${message}" loc defs;

  mergeEqual =
    loc: defs:
    let
      first = (head defs).value;
    in
    # functions never compare equal, so a single definition must not be compared with itself
    if length defs == 1 || all (v: v == first) (values defs) then
      first
    else
      throw (
        "The option `${showOption loc}' has conflicting definition values:${showDefs defs}\n"
        + "Use `lib.mkForce value` or `lib.mkDefault value`"
        + " to change the priority on any of these definitions."
      );

  applyTo = arg: map (def: def // { value = def.value arg; });

  # The merge of an option without a type: joins the values that can be joined.
  mergeDefault =
    loc: defs:
    let
      vs = values defs;
    in
    if length vs == 1 then
      head vs
    else if all isFunction vs then
      arg: mergeDefault loc (applyTo arg defs)
    else if all isList vs then
      concatLists vs
    else if all isAttrs vs then
      foldl' (a: b: a // b) { } vs
    else if all isBool vs then
      foldl' (a: b: a || b) false vs
    else if all isString vs then
      concatStringsSep "" vs
    else if all isInt vs && all (v: v == head vs) vs then
      head vs
    else
      throw "Cannot merge definitions of `${showOption loc}'. Definition values:${showDefs defs}";

  simple =
    name: description: check:
    mkOptionType {
      inherit name description check;
      merge = mergeEqual;
    };
  both =
    f: a: b:
    let
      t = mergeTypes a b;
    in
    if t == null then null else f t;

  # null when two declarations of one option have incompatible types
  mergeTypes =
    a: b:
    if a.name != b.name then
      null
    else if a ? typeMerge then
      a.typeMerge b
    else
      a;

  attrsWith =
    { elemType, lazy }:
    mkOptionType {
      name = if lazy then "lazyAttrsOf" else "attrsOf";
      description = "${if lazy then "lazy " else ""}attribute set of ${elemType.description}";
      check = isAttrs;
      merge =
        loc: defs:
        let
          merged = zipAttrsWith (name: mergeDefinitions (loc ++ [ name ]) elemType) (
            map (
              def:
              mapAttrs (_: value: {
                inherit (def) file;
                inherit value;
              }) def.value
            ) defs
          );
        in
        if lazy then
          mapAttrs (_: m: if m.isDefined then m.value else elemType.emptyValue.value or m.value) merged
        else
          mapAttrs (_: m: m.value) (filterAttrs (_: m: m.isDefined) merged);
      emptyValue.value = { };
      typeMerge =
        b:
        both (
          t:
          attrsWith {
            elemType = t;
            inherit lazy;
          }
        ) elemType b.elemType;
      # for merging a free-form definition of one attribute
      inherit elemType lazy;
    };

  between =
    low: high:
    addCheck types.int (x: low <= x && x <= high)
    // {
      name = "intBetween";
      description = "integer between ${toString low} and ${toString high} (both inclusive)";
    };
  sized =
    name: low: high:
    between low high
    // {
      inherit name;
      description = "${name}; between ${toString low} and ${toString high} (both inclusive)";
    };

  addCheck = type: check: type // { check = x: type.check x && check x; };

  # a plain set that can be walked into: not a package, property or function
  isTree = v: isAttrs v && !(v ? _type || v ? outPath || v ? __functor || isDerivation v);
in
rec {
  inherit
    addCheck
    mergeTypes
    mergeDefault
    mergeEqual
    mergeOne
    isTree
    ;

  unspecified = mkOptionType {
    name = "unspecified";
    description = "unspecified value";
  };
  raw = mkOptionType {
    name = "raw";
    description = "raw value";
    merge = mergeOne "";
  };
  optionType = mkOptionType {
    name = "optionType";
    check = lib.isType "option-type";
    merge = mergeOne "";
  };
  bool = simple "bool" "boolean" isBool;
  boolByOr = bool // {
    name = "boolByOr";
    merge = _: defs: lib.any (v: v) (values defs);
  };
  int = simple "int" "signed integer" isInt;
  float = simple "float" "floating point number" isFloat;
  number = either int float;
  ints = {
    inherit between;
    unsigned = addCheck int (x: x >= 0) // {
      name = "unsignedInt";
      description = "unsigned integer, meaning >=0";
    };
    positive = addCheck int (x: x > 0) // {
      name = "positiveInt";
      description = "positive integer, meaning >0";
    };
    u8 = sized "8 bit unsigned integer" 0 255;
    u16 = sized "16 bit unsigned integer" 0 65535;
    u32 = sized "32 bit unsigned integer" 0 4294967295;
    s8 = sized "8 bit signed integer" (-128) 127;
    s16 = sized "16 bit signed integer" (-32768) 32767;
    s32 = sized "32 bit signed integer" (-2147483648) 2147483647;
  };
  numbers = {
    between = low: high: addCheck number (x: low <= x && x <= high);
    nonnegative = addCheck number (x: x >= 0);
    positive = addCheck number (x: x > 0);
  };
  port = ints.u16;

  str = simple "str" "string" isString;
  nonEmptyStr = simple "nonEmptyStr" "non-empty string" (x: isString x && match "[ \t\n]*" x == null);
  strMatching =
    pattern:
    simple "strMatching ${lib.escapeNixString pattern}" "string matching the pattern ${pattern}" (
      x: isString x && match pattern x != null
    );
  singleLineStr = strMatching "[^\n\r]*\n?" // {
    name = "singleLineStr";
    description = "(optionally newline-terminated) single-line string";
    merge = loc: defs: lib.removeSuffix "\n" (mergeEqual loc defs);
  };
  separatedString =
    sep:
    mkOptionType {
      name = "separatedString";
      description = "strings concatenated with ${builtins.toJSON sep}";
      check = isString;
      merge = _: defs: concatStringsSep sep (values defs);
    };
  lines = separatedString "\n";
  commas = separatedString ",";
  envVar = separatedString ":";
  passwdEntry =
    entry:
    addCheck entry (s: !(lib.hasInfix ":" s || lib.hasInfix "\n" s))
    // {
      name = "passwdEntry ${entry.name}";
      description = "${entry.description}, not containing newlines or colons";
    };

  path = simple "path" "absolute path" (x: isStringLike x && substring 0 1 (toString x) == "/");
  pathInStore = simple "path" "path in the Nix store" (
    x: isStringLike x && lib.hasPrefix "${builtins.storeDir}/" (toString x)
  );
  externalPath = simple "path" "absolute path not in the Nix store" (
    x: isString x && lib.hasPrefix "/" x && !lib.hasPrefix "${builtins.storeDir}/" x
  );
  package = mkOptionType {
    name = "package";
    check = x: isDerivation x || lib.isStorePath x;
    merge = mergeOne "";
  };
  shellPackage = package // {
    check = x: isDerivation x && x ? shellPath;
  };
  pkgs = addCheck attrs (x: x._type or null == "pkgs") // {
    name = "pkgs";
    description = "Nixpkgs package set";
  };

  attrs = mkOptionType {
    name = "attrs";
    description = "attribute set";
    check = isAttrs;
    emptyValue.value = { };
    merge = _: defs: foldl' (a: b: a // b) { } (values defs);
  };
  attrsOf =
    elemType:
    attrsWith {
      inherit elemType;
      lazy = false;
    };
  lazyAttrsOf =
    elemType:
    attrsWith {
      inherit elemType;
      lazy = true;
    };

  listOf =
    elemType:
    mkOptionType {
      name = "listOf";
      description = "list of ${elemType.description}";
      check = isList;
      # an element may itself be a mkIf; one whose condition is false is left out
      merge =
        loc: defs:
        let
          element =
            n: def: m: value:
            mergeDefinitions (loc ++ [ "[definition ${toString n}-entry ${toString m}]" ]) elemType [
              {
                inherit (def) file;
                inherit value;
              }
            ];
          elements = concatLists (imap1 (n: def: imap1 (element n def) def.value) defs);
        in
        map (m: m.value) (filter (m: m.isDefined) elements);
      emptyValue.value = [ ];
      typeMerge = b: both listOf elemType b.elemType;
      inherit elemType;
    };
  nonEmptyListOf =
    elemType:
    addCheck (listOf elemType) (l: l != [ ])
    // {
      description = "non-empty list of ${elemType.description}";
      emptyValue = { };
    };

  nullOr =
    elemType:
    mkOptionType {
      name = "nullOr";
      description = "null or ${elemType.description}";
      check = x: x == null || elemType.check x;
      merge =
        loc: defs:
        let
          nulls = filter (def: def.value == null) defs;
        in
        if nulls == [ ] then
          elemType.merge loc defs
        else if length nulls == length defs then
          null
        else
          throw "The option `${showOption loc}` is defined both null and not null, in ${filesOf defs}.";
      emptyValue.value = null;
      typeMerge = b: both nullOr elemType b.elemType;
      inherit elemType;
    };

  either =
    a: b:
    mkOptionType {
      name = "either";
      description = "${a.description} or ${b.description}";
      check = x: a.check x || b.check x;
      merge =
        loc: defs:
        if all (d: a.check d.value) defs then
          a.merge loc defs
        else if all (d: b.check d.value) defs then
          b.merge loc defs
        else
          mergeOne "" loc defs;
    };
  oneOf = ts: foldl' either (head ts) (tail ts);

  enum =
    known:
    mkOptionType {
      name = "enum";
      description = "one of ${concatMapStringsSep ", " showValue known}";
      check = x: elem x known;
      merge = mergeEqual;
      typeMerge = b: enum (lib.unique (known ++ b.known));
      inherit known;
    };

  coercedTo =
    from: coerce: to:
    mkOptionType {
      name = "coercedTo";
      description = "${to.description} or ${from.description} convertible to it";
      check = x: to.check x || (from.check x && to.check (coerce x));
      merge =
        loc: defs:
        let
          final = v: if from.check v then coerce v else v;
        in
        to.merge loc (map (def: def // { value = final def.value; }) defs);
      inherit (to) emptyValue;
      typeMerge = _: null;
    };

  uniq = unique' { message = ""; };
  unique = unique';
  unique' =
    { message }:
    type:
    type
    // {
      name = "unique";
      merge = loc: defs: if length defs == 1 then type.merge loc defs else mergeOne message loc defs;
    };

  functionTo =
    elemType:
    mkOptionType {
      name = "functionTo";
      description = "function that evaluates to a(n) ${elemType.description}";
      check = isFunction;
      merge = loc: defs: {
        __functionArgs = zipAttrsWith (_: all (x: x)) (map (def: functionArgs def.value) defs);
        __functor =
          _: arg: (mergeDefinitions (loc ++ [ "<function body>" ]) elemType (applyTo arg defs)).value;
      };
    };

  anything = mkOptionType {
    name = "anything";
    description = "anything";
    merge =
      loc: defs:
      let
        kind = v: if isAttrs v && isStringLike v then "stringlike" else typeOf v;
        kinds = lib.unique (map kind (values defs));
      in
      if length kinds > 1 then
        throw "The option `${showOption loc}' has conflicting option types in ${filesOf defs}"
      else
        {
          set = (attrsOf anything).merge;
          stringlike = mergeOne "";
          lambda =
            loc: defs: arg:
            anything.merge (loc ++ [ "<function body>" ]) (applyTo arg defs);
        }
        .${head kinds} or mergeEqual
        loc
        defs;
  };
  json = mkOptionType {
    name = "json";
    description = "JSON value";
    merge = anything.merge;
  };

  submodule =
    modules:
    submoduleWith {
      modules = toList modules;
      shorthandOnlyDefinesConfig = true;
    };
  submoduleWith =
    {
      modules,
      specialArgs ? { },
      shorthandOnlyDefinesConfig ? false,
      description ? "submodule",
      class ? null,
    }:
    let
      eval =
        loc: more:
        evalModules {
          modules = [
            { _module.args.name = lib.mkOptionDefault "‹name›"; }
          ]
          # as imports, as nixpkgs does it, because imports come after the modules that name them
          ++ map (m: { imports = [ m ]; }) modules
          ++ more;
          inherit specialArgs;
          prefix = loc;
        };
      isConfig = v: isAttrs v && shorthandOnlyDefinesConfig == true;
      asModule =
        def:
        {
          _file = def.file;
        }
        // (if isConfig def.value then { config = def.value; } else { imports = [ def.value ]; });
    in
    mkOptionType {
      name = "submodule";
      inherit description;
      check = x: isAttrs x || isFunction x || path.check x;
      merge = loc: defs: (eval loc ([ { _module.args.name = last loc; } ] ++ map asModule defs)).config;
      emptyValue.value = (eval [ ] [ ]).config;
      typeMerge =
        b:
        submoduleWith {
          # the later declaration's modules come first, as nixpkgs has them
          modules = b.subModules ++ modules;
          specialArgs = specialArgs // b.specialArgs;
          shorthandOnlyDefinesConfig =
            if shorthandOnlyDefinesConfig != null then
              shorthandOnlyDefinesConfig
            else
              b.shorthandOnlyDefinesConfig;
        };
      subModules = modules;
      inherit specialArgs shorthandOnlyDefinesConfig;
    };
  deferredModule = mkOptionType {
    name = "deferredModule";
    description = "module";
    check = x: isAttrs x || isFunction x || path.check x;
    merge = loc: defs: {
      imports = map (def: {
        _file = "${def.file}, via option ${showOption loc}";
        imports = [ def.value ];
      }) defs;
    };
  };

  # Free-form, merged by the shape of the values: attribute sets join by name, lists are concatenated, anything
  # else must agree. Names are lazy: which attributes exist never depends on a mkIf condition, so that a condition
  # may read the configuration that it is part of. Reading an attribute throws if all its definitions are disabled.
  shape = mkOptionType {
    name = "shape";
    description = "value merged by its shape";
    merge =
      loc: defs:
      if all (def: isTree def.value) defs then
        (lib.mergeTree loc shape [ ] defs).config
      else if all (def: isList def.value) defs then
        concatLists (values defs)
      else
        mergeEqual loc defs;
    elemType = shape;
    lazy = true;
    accepts = _: true;
    emptyValue.value = { };
  };
  # like `shape`, but only below the given names; any other undeclared name is an error
  shapeBelow = names: shape // { accepts = name: elem name names; };
}
