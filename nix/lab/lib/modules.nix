# A small module system with the rules of nixpkgs' `lib.evalModules`: same priorities, same order of
# list merges, same laziness, same error messages. One addition: a module whose freeformType is
# `types.shape` accepts any path that no option declares, which is how the lab accepts NixOS's options.
{ lib }:
let
  inherit (lib)
    any
    concatLists
    concatMap
    elem
    filter
    filterAttrs
    foldl'
    functionArgs
    hasPrefix
    head
    imap1
    isAttrs
    isFunction
    isList
    isString
    isType
    length
    mapAttrs
    mapAttrsToList
    mergeDefinitions
    mkMerge
    mkOption
    mkOptionDefault
    optional
    optionalAttrs
    pushDown
    removeAttrs
    reverseList
    showDefs
    showFiles
    showOption
    types
    zipAttrsWith
    ;
  inherit (builtins) addErrorContext attrNames typeOf;

  # Options

  # The option at `loc`, declared once or more ([ { file; options; } ]) and defined by `defs`.
  evalOption =
    loc: decls: defs:
    let
      option = foldl' (mergeDeclaration loc) {
        inherit loc;
        declarations = [ ];
      } decls;
      type = option.type or types.unspecified;
      all =
        optional (option ? default) {
          file = head option.declarations;
          value = mkOptionDefault option.default;
        }
        ++ defs;
      merged =
        if option.readOnly or false && length all > 1 then
          throw (
            "The option `${showOption loc}' is read-only, but it's set multiple times."
            + " Definition values:${showDefs all}"
          )
        else
          mergeDefinitions loc type all;
    in
    option
    // {
      _type = "option";
      inherit type;
      inherit (merged)
        isDefined
        files
        highestPrio
        definitionsWithLocations
        ;
      definitions = map (def: def.value) merged.definitionsWithLocations;
      value = addErrorContext "while evaluating the option `${showOption loc}':" (
        (option.apply or lib.id) merged.value
      );
      __toString = _: showOption loc;
    };

  mergeDeclaration =
    loc: option: decl:
    let
      new = decl.options;
      both = name: option ? ${name} && new ? ${name};
      type = types.mergeTypes option.type new.type;
    in
    if
      any both [
        "default"
        "example"
        "description"
        "apply"
      ]
      || (both "type" && type == null)
    then
      throw (
        "The option `${showOption loc}' in `${decl.file}'"
        + " is already declared in ${showFiles option.declarations}."
      )
    else
      new
      // option
      // {
        declarations = option.declarations ++ [ decl.file ];
      }
      // optionalAttrs (both "type") { inherit type; };

  # [ { file; ${field} = attrset; } ] -> by name, [ { file; ${field}; } ]
  byName =
    loc: field: list:
    zipAttrsWith (_: found: found) (
      map (
        x:
        if isAttrs x.${field} then
          mapAttrs (_: v: {
            inherit (x) file;
            ${field} = v;
          }) x.${field}
        else
          throw (
            "In module `${x.file}', `${showOption loc}'"
            + " is of type ${typeOf x.${field}} and not an attribute set"
          )
      ) list
    );

  pushDownAll = concatMap (
    def:
    map (value: {
      inherit (def) file;
      inherit value;
    }) (pushDown def.value)
  );

  # The tree below `loc` -> { options; config; unmatched; }. Paths that `decls` ([ { file; options; } ]) declare
  # are merged by their types, the rest by the type `freeform`; if that is null, an undeclared path is `unmatched`.
  # `defs` are [ { file; value; } ] without a property (mkIf, ...) at the top.
  mergeTree =
    loc: freeform: decls: defs:
    let
      declared = byName loc "options" decls;
      defined = byName loc "value" defs;
      undeclared = removeAttrs defined (attrNames declared);
      accepts = name: freeform != null && (freeform.accepts or (_: true)) name;
      below = name: if accepts name then freeform.elemType or null else null;
      pushed = name: pushDownAll (defined.${name} or [ ]);

      known = mapAttrs (
        name: decls:
        let
          here = loc ++ [ name ];
          isOption = decl: isType "option" decl.options;
          declaring = filter isOption decls;
          nested = length declaring < length decls;
          option = evalOption here (map (d: if isOption d then d else asSubmodule d) decls) (
            defined.${name} or [ ]
          );
        in
        if declaring == [ ] then
          mergeTree here (below name) decls (pushed name)
        else if nested && any (d: d.options.type.name or "" != "submodule") declaring then
          throw (
            "The option `${showOption here}' in module `${(head declaring).file}' would be a parent"
            + " of other options, but its type does not support nested options"
          )
        else
          {
            options = option;
            config = option.value;
            unmatched = [ ];
          }
      ) declared;

      free = mapAttrs (
        name: raw:
        let
          here = loc ++ [ name ];
          # a set of type shape is walked like a declared tree, so that conditions in it stay unevaluated
          isTree = freeform.name == "shape" && lib.all (def: types.isTree def.value) (pushed name);
        in
        if isTree then
          {
            isDefined = true;
            value = (mergeTree here freeform.elemType [ ] (pushed name)).config;
          }
        else
          mergeDefinitions here (freeform.elemType or types.raw) raw
      ) (filterAttrs (name: _: accepts name) undeclared);
      present = if freeform.lazy or false then free else filterAttrs (_: merged: merged.isDefined) free;
    in
    {
      options = mapAttrs (_: k: k.options) known;
      config = mapAttrs (_: k: k.config) known // mapAttrs (_: merged: merged.value) present;
      unmatched =
        concatLists (mapAttrsToList (_: k: k.unmatched) known)
        ++ concatLists (
          mapAttrsToList (name: map (def: def // { loc = loc ++ [ name ]; })) (
            filterAttrs (name: _: !accepts name) undeclared
          )
        );
    };

  # options declared below a submodule option belong to the submodule
  asSubmodule =
    decl:
    decl
    // {
      options.type = types.submoduleWith {
        modules = [
          {
            inherit (decl) options;
            _file = decl.file;
          }
        ];
        shorthandOnlyDefinesConfig = null;
      };
    };

  # Modules

  # A path, an attribute set or a function that returns one -> { key; file; imports; disabled; options; config; }
  loadModule =
    args: parent: key: m:
    let
      type = m._type or "module";
      fromFile = import m;
    in
    if isFunction m then
      canonical parent key (callModule key args m)
    else if isAttrs m && type == "module" then
      canonical parent key m
    else if
      isAttrs m
      && elem type [
        "if"
        "override"
        "merge"
      ]
    then
      canonical parent key { config = m; }
    else if isAttrs m then
      throw (
        "Expected a module, but found a value of type \"${type}\","
        + " while trying to load a module into ${parent}"
      )
    else if isList m then
      throw (
        "Module imports can't be nested lists. Perhaps you meant to remove one level of lists?"
        + " In `${parent}'"
      )
    else
      canonical (toString m) (toString m) (
        if isFunction fromFile then callModule (toString m) args fromFile else fromFile
      );

  # Passes each argument that the function names, lazily, from `args` or else from `_module.args`.
  callModule =
    key: args: f:
    f (
      args
      // mapAttrs (
        name: _:
        addErrorContext "while evaluating the module argument `${name}' in \"${key}\":" (
          args.${name} or args.config._module.args.${name}
        )
      ) (functionArgs f)
    );

  canonical =
    file: key: m:
    let
      reserved = [
        "_class"
        "_file"
        "key"
        "disabledModules"
        "imports"
        "require"
        "freeformType"
      ];
      explicit = m ? config || m ? options;
      extra = attrNames (
        removeAttrs m (
          reserved
          ++ [
            "options"
            "config"
            "meta"
          ]
        )
      );
      config = if explicit then m.config or { } else removeAttrs m reserved;
    in
    if !isAttrs m then
      throw "module ${file} (${key}) does not look like a module."
    else if explicit && extra != [ ] then
      throw (
        "Module `${key}' has an unsupported attribute `${head extra}'. This is caused by introducing"
        + " a top-level `config' or `options' attribute. Add configuration attributes immediately on the"
        + " top level instead, or move all of them (namely: ${toString extra}) into the explicit `config'"
        + " attribute."
      )
    else
      {
        key = toString (m.key or key);
        file = toString (m._file or file);
        imports = m.require or [ ] ++ m.imports or [ ];
        disabled = m.disabledModules or [ ];
        options = m.options or { };
        config = mkMerge (
          [ config ]
          ++ optional (explicit && m ? meta) { inherit (m) meta; }
          ++ optional (m ? freeformType) { _module.freeformType = m.freeformType; }
        );
      };

  # All modules that `modules` import, each once, breadth first.
  collect =
    args: modulesPath: modules:
    let
      load =
        parent: parentKey:
        imap1 (
          n: m:
          let
            module = loadModule args parent "${parentKey}:anon-${toString n}" m;
          in
          {
            inherit (module) key;
            inherit module;
            below = load module.file module.key module.imports;
          }
        );
      tree = load "<unknown-file>" "" modules;

      keyOf =
        m:
        if isString m && !hasPrefix "/" m then
          "${toString modulesPath}/${m}"
        else if isAttrs m && m ? key then
          m.key
        else
          toString m;
      disabledIn = concatMap (x: map keyOf x.module.disabled ++ disabledIn x.below);
      disabled = disabledIn tree;
      enabled = filter (x: !elem x.key disabled);
    in
    map (x: x.module) (
      builtins.genericClosure {
        startSet = enabled tree;
        operator = x: enabled x.below;
      }
    );

  internal = specialArgs: extendModules: rec {
    _file = "nix/lab/lib/modules.nix";
    key = _file;
    options._module = {
      args = mkOption {
        type = types.lazyAttrsOf types.raw;
        default = { };
        description = "Additional arguments passed to each module.";
      };
      check = mkOption {
        type = types.bool;
        default = true;
        description = "Whether an undeclared path is an error.";
      };
      freeformType = mkOption {
        type = types.nullOr types.optionType;
        default = null;
        description = "Type of undeclared paths; null refuses them.";
      };
      specialArgs = mkOption {
        type = types.raw;
        default = specialArgs;
        description = "Arguments that imports may depend on.";
      };
    };
    config._module.args = { inherit extendModules; };
  };
in
{
  inherit mergeTree;

  setDefaultModuleLocation = file: m: {
    _file = file;
    imports = [ m ];
  };
  importApply = file: arg: lib.setDefaultModuleLocation file (import file arg);

  # As in nixpkgs: returns { config; options; extendModules; _module; … }. Errors show option paths below
  # `prefix`. Throws on an undeclared path unless a module sets `freeformType`.
  evalModules =
    evalArgs@{
      modules,
      specialArgs ? { },
      prefix ? [ ],
      class ? null,
    }:
    let
      args = {
        inherit lib specialArgs;
        inherit (tree) options config;
        _class = class;
        _prefix = prefix;
      }
      // specialArgs;

      # later modules first, as in nixpkgs: the order shows in merged lists
      all = reverseList (
        collect args (specialArgs.modulesPath or "") (modules ++ [ (internal specialArgs extendModules) ])
      );
      inherit (tree.options) _module;
      tree = mergeTree prefix _module.freeformType.value (map (m: { inherit (m) file options; }) all) (
        pushDownAll (
          map (m: {
            inherit (m) file;
            value = m.config;
          }) all
        )
      );

      stray = head tree.unmatched;
      checked =
        if !_module.check.value || tree.unmatched == [ ] then
          lib.id
        else
          throw (
            "The option `${showOption stray.loc}' does not exist." + " Definition values:${showDefs [ stray ]}"
          );

      extendModules =
        more:
        lib.evalModules (
          evalArgs
          // {
            modules = modules ++ more.modules or [ ];
            specialArgs = specialArgs // more.specialArgs or { };
            prefix = more.prefix or prefix;
          }
        );
    in
    {
      _type = "configuration";
      inherit class extendModules;
      inherit (tree.config) _module;
      options = checked tree.options;
      config = checked (removeAttrs tree.config [ "_module" ]);
      type = types.submoduleWith { inherit modules specialArgs; };
    };
}
