# Inputs for the flakes beside this file, so that they evaluate with no network: of each library
# just what they call, by its documented behaviour
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    filter
    foldl'
    isFunction
    isPath
    listToAttrs
    map
    mapAttrs
    match
    readDir
    substring
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
    extend = _: lib;
    concatMapAttrs = f: set: mergeAttrsList (mapAttrsToList f set);
    filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
    flip = f: a: b: f b a;
    forEach = list: f: map f list;
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    "mapAttrs'" = f: set: listToAttrs (mapAttrsToList f set);
    pipe = foldl' (value: f: f value);
    removeSuffix = _: name: name;
  };

  nixpkgs = {
    inherit lib;
    outPath = ./stand-in.nix;
    legacyPackages.x86_64-linux = { };
  };

  # flake-parts: the modules' `flake`, two levels deep
  mkFlake =
    { inputs }:
    module:
    let
      flatten =
        given:
        let
          read = if isPath given then import given else given;
          value = if isFunction read then read { inherit inputs; withSystem = null; config.flake = result; } else read;
        in
        [ (value.flake or { }) ] ++ concatMap flatten (value.imports or [ ]);
      deeper = a: b: a // mapAttrs (name: value: (a.${name} or { }) // value) b;
      result = foldl' deeper { } (flatten module);
    in
    result;

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
  import-tree = directory: { imports = filesBelow directory; };
  home-manager.nixosModules.home-manager = { };
  treefmt.flakeModule = { };
}
