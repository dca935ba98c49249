# A small module system with the rules of nixpkgs' `lib.evalModules`: same priorities, same order of
# list merges, same laziness. It needs no nixpkgs, so a host evaluates with no network.
#
# This file is the whole `lib`: helpers (lib.nix), types (types.nix), and what is defined below.
# Against nixpkgs one thing is added: `types.shape` as a module's freeformType accepts any path that no
# option declares, which is how the lab takes NixOS options that it has no use for.
let
  inherit (lib)
    attrByPath concatLists concatMap concatMapStringsSep concatStringsSep elem filter filterAttrs foldl'
    functionArgs head imap1 isAttrs isBool isFunction isList isString isType last length literalExpression
    mapAttrs mapAttrsToList optional optionalAttrs removeAttrs reverseList setAttrByPath sort take toList types
    zipAttrsWith;
  inherit (builtins) addErrorContext attrNames typeOf;

  # Properties: what a definition may be wrapped in
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOrder = priority: content: { _type = "order"; inherit priority content; };
  defaultPriority = 100;
  defaultOrder = 1000;
  propertyOf = v: if isAttrs v then v._type or "" else "";

  # One definition -> the definitions without property at the top that it stands for. Conditions go
  # down to the attributes unevaluated, so a mkIf may read the configuration that it is part of.
  pushDown = v:
    let inside = wrap: map (set: if isAttrs set then mapAttrs (_: wrap) set else set); in {
      merge = concatMap pushDown v.contents;
      "if" = inside (mkIf v.condition) (pushDown v.content);
      override = inside (mkOverride v.priority) (pushDown v.content);
    }.${propertyOf v} or [ v ];

  # One definition of an option -> its values once every mkIf and mkMerge is decided.
  discharge = v: {
    merge = concatMap discharge v.contents;
    "if" =
      if !isBool v.condition then throw "‘mkIf’ called with a non-Boolean condition"
      else if v.condition then discharge v.content else [ ];
  }.${propertyOf v} or [ v ];

  # { isDefined; value; files; highestPrio; … } of an option of `type` at `loc`. Throws, when the
  # value is read, on no definition, on a value of another type and on definitions that disagree.
  mergeDefinitions = loc: type: raw:
    let
      defs = concatMap (def: map (value: { inherit (def) file; inherit value; })
        (addErrorContext "while evaluating definitions from `${def.file}':" (discharge def.value))) raw;
      unwrap = property: field: default: def:
        if propertyOf def.value == property then def // { value = def.value.content; ${field} = def.value.${field}; }
        else def // { ${field} = default; };
      prioritized = map (unwrap "override" "priority" defaultPriority) defs;
      highestPrio = foldl' (low: def: lib.min low def.priority) 9999 prioritized;
      ordered = map (unwrap "order" "priority" defaultOrder) (filter (def: def.priority == highestPrio) prioritized);
      final = sort (a: b: a.priority < b.priority) ordered;
      wrong = filter (def: !type.check def.value) final;
    in
    rec {
      inherit highestPrio;
      isDefined = final != [ ];
      definitionsWithLocations = map (def: { inherit (def) file value; }) final;
      files = map (def: def.file) final;
      value =
        if wrong != [ ] then
          throw "A definition for option `${showOption loc}' is not of type `${type.description}'. Definition values:${showDefs wrong}"
        else if isDefined then type.merge loc definitionsWithLocations
        else type.emptyValue.value or
          (throw "The option `${showOption loc}' was accessed but has no value defined. Try setting the option.");
    };

  # The option at `loc`, declared once or more ({ file; options; }) and defined by `defs`.
  evalOption = loc: decls: defs:
    let
      opt = foldl' (mergeDecl loc) { inherit loc; declarations = [ ]; } decls;
      type = opt.type or types.unspecified;
      default = optional (opt ? default) { file = head opt.declarations; value = mkOverride 1500 opt.default; };
      merged =
        if opt.readOnly or false && length (default ++ defs) > 1 then
          throw "The option `${showOption loc}' is read-only, but it's set multiple times. Definition values:${showDefs (default ++ defs)}"
        else mergeDefinitions loc type (default ++ defs);
    in
    opt // {
      _type = "option";
      inherit type;
      inherit (merged) isDefined files highestPrio definitionsWithLocations;
      definitions = map (def: def.value) merged.definitionsWithLocations;
      value = addErrorContext "while evaluating the option `${showOption loc}':" ((opt.apply or lib.id) merged.value);
      __toString = _: showOption loc;
    };

  mergeDecl = loc: opt: decl:
    let
      new = decl.options;
      clash = lib.any (k: opt ? ${k} && new ? ${k}) [ "default" "example" "description" "apply" ];
      type = types.mergeTypes opt.type new.type;
    in
    if clash || (opt ? type && new ? type && type == null) then
      throw "The option `${showOption loc}' in `${decl.file}' is already declared in ${showFiles opt.declarations}."
    else new // opt // { declarations = opt.declarations ++ [ decl.file ]; }
      // optionalAttrs (opt ? type && new ? type) { inherit type; };

  # The tree below `loc`: what `decls` ([ { file; options; } ]) declare, by its type, and the rest by the
  # type `freeform` (null: an undeclared path is `unmatched`). `defs` are [ { file; value = attrset; } ].
  mergeTree = loc: freeform: decls: defs:
    let
      accepts = name: freeform != null && (freeform.accepts or (_: true)) name;
      byName = field: list: zipAttrsWith (_: v: v) (map (x:
        if isAttrs x.${field} then mapAttrs (_: v: { inherit (x) file; ${field} = v; }) x.${field}
        else throw "In module `${x.file}', ${showOption loc} is of type ${typeOf x.${field}} and not an attribute set") list);
      declared = byName "options" decls;
      defined = byName "value" defs;
      pushed = name: concatMap (def: map (value: { inherit (def) file; inherit value; }) (pushDown def.value)) (defined.${name} or [ ]);

      at = name: ds:
        let
          here = loc ++ [ name ];
          isOpt = d: isType "option" d.options;
          optionDecls = filter isOpt ds;
          # options declared below a submodule option belong to the submodule
          wrap = d: if isOpt d then d else d // {
            options.type = types.submoduleWith { modules = [ { inherit (d) options; _file = d.file; } ]; shorthandOnlyDefinesConfig = null; };
          };
          option = evalOption here (map wrap ds) (defined.${name} or [ ]);
        in
        if optionDecls == [ ] then mergeTree here (if accepts name then freeform.elemType or null else null) ds (pushed name)
        else if length optionDecls < length ds && lib.any (d: d.options.type.name or "" != "submodule") optionDecls then
          throw "The option `${showOption here}' in module `${(head optionDecls).file}' would be a parent of other options, but its type does not support nested options"
        else { options = option; config = option.value; unmatched = [ ]; };
      known = mapAttrs at declared;

      strange = removeAttrs defined (attrNames declared);
      free = mapAttrs (name: raw:
        if freeform.name == "shape" && lib.all (def: types.isTree def.value) (pushed name) then
          { isDefined = true; value = (mergeTree (loc ++ [ name ]) freeform.elemType [ ] (pushed name)).config; }
        else mergeDefinitions (loc ++ [ name ]) (freeform.elemType or types.raw) raw) (filterAttrs (name: _: accepts name) strange);
    in
    {
      options = mapAttrs (_: k: k.options) known;
      config = mapAttrs (_: k: k.config) known
        // mapAttrs (_: m: m.value) (if freeform.lazy or false then free else filterAttrs (_: m: m.isDefined) free);
      unmatched = concatLists (mapAttrsToList (_: k: k.unmatched) known)
        ++ concatLists (mapAttrsToList (name: map (def: def // { loc = loc ++ [ name ]; })) (filterAttrs (name: _: !accepts name) strange));
    };

  # Modules: a path, an attribute set or a function to one -> { key; file; imports; options; config; … }
  loadModule = args: parent: key: m:
    if isFunction m then canonical parent key (callModule key args m)
    else if isAttrs m && elem (m._type or "module") [ "module" "if" "override" "merge" ] then
      canonical parent key (if m._type or "module" == "module" then m else { config = m; })
    else if isAttrs m then throw "Expected a module, but found a value of type \"${m._type}\", while trying to load a module into ${parent}"
    else if isList m then throw "Module imports can't be nested lists. Perhaps you meant to remove one level of lists? In `${parent}'"
    else let f = import m; in canonical (toString m) (toString m) (if isFunction f then callModule (toString m) args f else f);

  # Every argument that the function names is given, from `args` or else from `_module.args`, lazily.
  callModule = key: args: f:
    f (args // mapAttrs (name: _: addErrorContext "while evaluating the module argument `${name}' in \"${key}\":"
      (args.${name} or args.config._module.args.${name})) (functionArgs f));

  canonical = file: key: m:
    let
      reserved = [ "_class" "_file" "key" "disabledModules" "imports" "require" "freeformType" ];
      extra = attrNames (removeAttrs m (reserved ++ [ "options" "config" "meta" ]));
      explicit = m ? config || m ? options;
      config = if explicit then m.config or { } else removeAttrs m reserved;
      and = name: value: c: if m ? ${name} && (explicit || name != "meta") then mkMerge [ c value ] else c;
    in
    if !isAttrs m then throw "module ${file} (${key}) does not look like a module."
    else if explicit && extra != [ ] then
      throw "Module `${key}' has an unsupported attribute `${head extra}'. This is caused by introducing a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level instead, or move all of them (namely: ${toString extra}) into the explicit `config' attribute."
    else {
      key = toString (m.key or key);
      file = toString (m._file or file);
      imports = m.require or [ ] ++ m.imports or [ ];
      disabled = m.disabledModules or [ ];
      options = m.options or { };
      config = and "freeformType" { _module.freeformType = m.freeformType; } (and "meta" { inherit (m) meta; } config);
    };

  # All modules that `modules` import, each once, breadth first.
  collect = args: modulesPath: modules:
    let
      load = parent: parentKey: imap1 (n: m:
        let mod = loadModule args parent "${parentKey}:anon-${toString n}" m; in
        { inherit (mod) key; module = mod; below = load mod.file mod.key mod.imports; });
      tree = load "<unknown-file>" "" modules;
      disabledIn = concatMap (x: map keyOf x.module.disabled ++ disabledIn x.below);
      keyOf = m:
        if isString m && !lib.hasPrefix "/" m then "${toString modulesPath}/${m}"
        else if isAttrs m && m ? key then m.key else toString m;
      off = disabledIn tree;
      enabled = filter (x: !elem x.key off);
    in
    map (x: x.module) (builtins.genericClosure { startSet = enabled tree; operator = x: enabled x.below; });

  # As in nixpkgs: { config; options; extendModules; _module; }, `prefix` being the path that errors
  # name first. Throws on an undeclared path unless a module sets `freeformType`.
  evalModules = evalArgs@{ modules, specialArgs ? { }, prefix ? [ ], class ? null }:
    let
      internal = {
        _file = "nix/lab/modules.nix";
        key = "nix/lab/modules.nix";
        options._module = {
          args = mkOption { type = types.lazyAttrsOf types.raw; default = { }; description = "Additional arguments passed to each module"; };
          check = mkOption { type = types.bool; default = true; description = "Whether an undeclared path is an error"; };
          freeformType = mkOption { type = types.nullOr types.optionType; default = null; description = "Type of undeclared paths"; };
          specialArgs = mkOption { type = types.raw; default = specialArgs; description = "Arguments that imports may depend on"; };
        };
        config._module.args = { inherit extendModules; };
      };
      args = { inherit lib specialArgs; inherit (tree) options config; _class = class; _prefix = prefix; } // specialArgs;
      all = reverseList (collect args (specialArgs.modulesPath or "") (modules ++ [ internal ]));
      inherit (tree.options) _module;
      tree = mergeTree prefix _module.freeformType.value
        (map (m: { inherit (m) file options; }) all)
        (concatMap (m: map (value: { inherit (m) file; inherit value; }) (pushDown m.config)) all);
      stray = head tree.unmatched;
      checked =
        if !_module.check.value || tree.unmatched == [ ] then lib.id
        else throw "The option `${showOption stray.loc}' does not exist. Definition values:${showDefs [ stray ]}";
      extendModules = more: evalModules (evalArgs // {
        modules = modules ++ more.modules or [ ];
        specialArgs = specialArgs // more.specialArgs or { };
        prefix = more.prefix or prefix;
      });
    in
    {
      _type = "configuration";
      inherit class extendModules;
      inherit (tree.config) _module;
      options = checked tree.options;
      config = checked (removeAttrs tree.config [ "_module" ]);
      type = types.submoduleWith { inherit modules specialArgs; };
    };

  # Options
  mkOption = attrs: attrs // { _type = "option"; };
  mkEnableOption = name: mkOption {
    type = types.bool;
    default = false;
    example = true;
    description = "Whether to enable ${name}.";
  };
  mkPackageOption = pkgs: name: { default ? name, nullable ? false, example ? null, extraDescription ? "", pkgsText ? "pkgs" }:
    let path = toList default; in
    mkOption ({
      description = "The ${last (toList name)} package to use.${lib.optionalString (extraDescription != "") " ${extraDescription}"}";
      type = if nullable then types.nullOr types.package else types.package;
    } // (if default != null then {
      default = attrByPath path (throw "${concatStringsSep "." path} cannot be found in ${pkgsText}") pkgs;
      defaultText = literalExpression "${pkgsText}.${concatStringsSep "." path}";
    } else optionalAttrs nullable { default = null; }));
  mkOptionType = t: {
    _type = "option-type";
    check = _: true;
    merge = types.mergeDefault;
    emptyValue = { };
    description = t.name;
  } // t;

  # Modules that stand for an option's former name
  forward = { from, to, visible ? true, warn ? false, use ? lib.id, withPriority ? true, condition ? true }:
    { config, options, ... }:
    let
      old = lib.getAttrFromPath from options;
      wrap = mkOverride (if withPriority then old.highestPrio else defaultPriority);
    in
    {
      options = setAttrByPath from (mkOption {
        inherit visible;
        type = (attrByPath to { } options).type or types.unspecified;
        description = "Alias of {option}`${showOption to}`.";
        apply = _: use (lib.getAttrFromPath to config);
      });
      config = mkIf condition (mkMerge [
        (optionalAttrs (options ? warnings) {
          warnings = optional (warn && old.isDefined)
            "The option `${showOption from}' defined in ${showFiles old.files} has been renamed to `${showOption to}'.";
        })
        (mkIf old.isDefined (setAttrByPath to (mkMerge (map wrap old.definitions))))
      ]);
    };

  # Words for errors
  showOption = loc: concatStringsSep "." (map (part:
    if builtins.match "[a-zA-Z_<*][a-zA-Z0-9_'.<>*-]*" part != null && !lib.hasInfix "." part || part == "*" then part
    else builtins.toJSON part) loc);
  showFiles = concatMapStringsSep " and " (file: "`${file}'");
  showDefs = concatMapStringsSep "" (def: "\n- In `${def.file}': ${showValue def.value}");
  showValue = let
    show = depth: v:
      if isFunction v then "<function>"
      else if v.type or null == "derivation" then "<derivation ${v.name or "?"}>"
      else if isAttrs v && v ? _type then "<${v._type}>"
      else if (isAttrs v || isList v) && depth == 0 then "…"
      else if isAttrs v then "{ ${lib.concatStrings (mapAttrsToList (n: x: "${n} = ${try (show (depth - 1)) x}; ") v)}}"
      else if isList v then "[ ${lib.concatMapStrings (x: "${try (show (depth - 1)) x} ") v}]"
      else if builtins.isPath v then toString v
      else builtins.toJSON v;
    # a message about one value must not fail on another that cannot be evaluated
    try = f: v: let r = builtins.tryEval (f v); in if r.success then r.value else "<error>";
  in try (show 3);

  mkForce = mkOverride 50;
  mkDefault = mkOverride 1000;

  lib = import ./lib.nix // {
    types = import ./types.nix { inherit lib; };
    inherit
      evalModules mergeDefinitions mergeTree mkDefault mkEnableOption mkForce mkIf mkMerge mkOption mkOptionType
      mkOrder mkOverride mkPackageOption pushDown showDefs showFiles showOption showValue;
    mkBefore = mkOrder 500;
    mkAfter = mkOrder 1500;
    mkOptionDefault = mkOverride 1500;
    mkVMOverride = mkOverride 10;
    mkImageMediaOverride = mkOverride 60;
    mkAssert = ok: message: mkIf (if ok then true else throw "\nFailed assertion: ${message}");
    mkAliasDefinitions = option: mkIf option.isDefined (mkMerge option.definitions);
    mkRenamedOptionModule = from: to: forward { inherit from to; warn = true; visible = false; };
    mkAliasOptionModule = from: to: forward { inherit from to; };
    mkRemovedOptionModule = path: instead: { options, ... }: {
      options = setAttrByPath path (mkOption { visible = false; apply = _: throw "The option `${showOption path}' can no longer be used since it's been removed. ${instead}"; });
      config.assertions =
        let opt = lib.getAttrFromPath path options; in
        [ { assertion = !opt.isDefined; message = "The option definition `${showOption path}' in ${showFiles opt.files} no longer has any effect; please remove it.\n${instead}"; } ];
    };
    isOption = isType "option";
    isOptionType = isType "option-type";
    setDefaultModuleLocation = file: m: { _file = file; imports = [ m ]; };
    importApply = file: arg: lib.setDefaultModuleLocation file (import file arg);

    # nixpkgs' names for the parts, so that `lib.strings.…` and the like are found
    modules = lib;
    options = lib;
    strings = lib;
    attrsets = lib;
    lists = lib;
    trivial = lib;
    meta = lib;
  };
in
lib
