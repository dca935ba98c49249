# Inputs for the flakes beside this file, so that they evaluate with no network: of each library
# just what they call, by its documented behaviour
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    elem
    elemAt
    filter
    foldl'
    genList
    head
    isAttrs
    isFunction
    isList
    isPath
    length
    listToAttrs
    map
    mapAttrs
    match
    readDir
    substring
    tail
    ;

  nameValuePair = name: value: { inherit name value; };
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  mergeAttrsList = foldl' (a: b: a // b) { };

  lib = {
    inherit nameValuePair mapAttrsToList mergeAttrsList;
    inherit (builtins) filter listToAttrs map mapAttrs;
    nixosSystem = arguments: arguments;
    attrsets = lib;
    id = value: value;
    hasSuffix = end: text: match ".*${end}" text != null;
    attrsToList = mapAttrsToList nameValuePair;
    concatMap = concatMap;
    "genAttrs'" = names: f: listToAttrs (map f names);
    imap1 = f: list: genList (index: f (index + 1) (elemAt list index)) (length list);
    optional = wanted: one: if wanted then [ one ] else [ ];
    extend =
      overlay:
      let
        extended = lib // overlay extended lib;
      in
      extended;
    flatten = given: if isList given then concatMap lib.flatten given else [ given ];
    concatMapAttrs = f: set: mergeAttrsList (mapAttrsToList f set);
    foldlAttrs = f: start: set: foldl' (all: name: f all name set.${name}) start (attrNames set);
    foldr = f: start: list: if list == [ ] then start else f (head list) (lib.foldr f start (tail list));
    filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
    flip = f: a: b: f b a;
    forEach = list: f: map f list;
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    "mapAttrs'" = f: set: listToAttrs (mapAttrsToList f set);
    recursiveUpdate = recursive;
    pipe = foldl' (value: f: f value);
    removeSuffix = _: name: name;
    unique = foldl' (all: one: if elem one all then all else all ++ [ one ]) [ ];
  };

  nixpkgs = {
    inherit lib;
    outPath = ./stand-in.nix;
    legacyPackages.x86_64-linux = { };
  };

  # flake-parts: the modules' `flake`, two levels deep, and for frameworks what else they say
  mkFlake =
    { inputs }:
    module:
    let
      flatten =
        given:
        let
          read = if isPath given then import given else given;
          config = options // { flake = result; };
          value = if isFunction read then read { inherit config inputs; withSystem = null; } else read;
        in
        [ value ] ++ concatMap flatten (value.imports or [ ]);
      modules = flatten module;
      deeper = a: b: a // mapAttrs (name: value: (a.${name} or { }) // value) b;
      result = foldl' deeper { } (map (value: value.flake or { }) modules);
      said = value: removeAttrs (value.config or value) [ "flake" "imports" ];
      options = foldl' recursive { } (map said modules);
    in
    result;

  recursive =
    a: b:
    a
    // mapAttrs (
      name: value: if isAttrs value && isAttrs (a.${name} or null) then recursive a.${name} value else value
    ) b;

  # easy-hosts: a directory for each platform, or one for all hosts of `onlySystem`, and the set
  easyHosts =
    { config, ... }:
    let
      given = config.easy-hosts or config.simple;
      isNixos = platform: match "[^-]+-nixos" platform != null;
      of = platform: if isNixos platform then readDir (given.path + "/${platform}") else { };
      listed =
        if !(given.autoConstruct or false) then
          { }
        else if given ? onlySystem then
          if isNixos given.onlySystem then readDir given.path else { }
        else
          mergeAttrsList (map of (attrNames (readDir given.path)));
      named = lib.filterAttrs (_: host: host.class or "nixos" == "nixos") (given.hosts or { });
    in
    {
      flake.nixosConfigurations = mapAttrs (_: _: { }) (listed // named);
    };

  # ez-configs: what is in `nixos-configurations` below its root, or in another directory
  ezConfigs =
    { config, ... }:
    let
      inherit (config.ezConfigs) root;
      directory = config.ezConfigs.nixos.configurationsDirectory or (root + "/nixos-configurations");
      bare = name: foldl' (_: head: head) name (match "(.*)[.]nix" name);
      names = map (name: if match ".*[.]nix" name == null then name else bare name) (attrNames (readDir directory));
    in
    {
      flake.nixosConfigurations = lib.genAttrs names (_: { });
    };

  # snowfall: a directory for each platform below its root
  snowfall = { src, snowfall ? { }, ... }: {
    mkFlake = _: {
      nixosConfigurations = readDir ((snowfall.root or src) + "/systems/x86_64-linux");
    };
  };

  removeAttrs' = names: set: removeAttrs set names;

  filesBelow =
    directory:
    concatLists (
      mapAttrsToList (
        name: kind:
        if substring 0 1 name == "_" then
          [ ]
        else if kind == "directory" then
          filesBelow (directory + "/${name}")
        else if match ".*[.]nix" name != null then
          [ (directory + "/${name}") ]
        else
          [ ]
      ) (readDir directory)
    );
in
{
  inherit nixpkgs;
  # takes all in one set, and flake's outputs as they are
  adios-flake.lib.mkFlake = { flake, ... }: if isFunction flake then flake { withSystem = null; } else flake;
  flake-parts.lib = {
    inherit mkFlake;
    importApply = path: given: import path given;
    evalFlakeModule = given: module: { config.flake = mkFlake given module; };
  };
  flake-utils-plus.lib.mkFlake = { hosts, ... }: { nixosConfigurations = hosts; };
  colmena.lib.makeHive = hive: { nodes = removeAttrs hive [ "meta" "defaults" ]; };
  # a flake of somebody else's, whose library is not known
  fleet = {
    nixosConfigurations.tern = { };
    lib.hosts = removeAttrs' [ "inputs" ];
    lib.compose = _: { nixosConfigurations.merganser = { }; };
  };
  flake-utils.lib.eachDefaultSystem = f: mapAttrs (_: value: { x86_64-linux = value; }) (f "x86_64-linux");
  import-tree = given: {
    imports = concatMap filesBelow (if isPath given then [ given ] else given);
  };
  stable = nixpkgs;
  den.flakeModule = { config, ... }: { flake.nixosConfigurations = config.den.hosts.x86_64-linux; };
  easy-hosts.flakeModule = easyHosts;
  simple.flakeModule = easyHosts;
  ez-configs.flakeModule = ezConfigs;
  snowfall-lib.mkLib = snowfall;
  home-manager.nixosModules.home-manager = { };
  treefmt.flakeModule = { };
}
