# The paths that a host's own files, the modules and the roles set. These are evaluated alone, with no NixOS
# option declared, so everything that has a value was set here. `lab` is nix/lab.
# Returns [ [ "networking" "hostName" ] … ].
lab: hostname:
let
  inherit (lab) lib;
  own = lib.evalModules {
    specialArgs.modulesPath = toString ../../nix/lab/stand-ins;
    modules = [
      (../../hosts + "/${hostname}")
      ../../nix/modules
      ../../nix/roles
      {
        freeformType = lib.types.shape;
        config._module.args.pkgs = (lab.labSystem { inherit hostname; }).pkgs;
        # a module tests whether this option exists; it does on both sides
        options.programs.atuin.enable = lib.mkOption { };
      }
    ];
  };
  # a definition whose mkIf is off has no value
  hasValue = v: (builtins.tryEval (builtins.seq v true)).success;
  leaves =
    path: v:
    if lib.types.isTree v then
      lib.concatLists (lib.mapAttrsToList (n: v: lib.optionals (hasValue v) (leaves (path ++ [ n ]) v)) v)
    else
      [ path ];
in
leaves [ ] own.config
