# labSystem: a host evaluated for the lab's Debian guest, from the same files as NixOS and with no input.
let
  lib = import ./lib;
in
{
  inherit lib;

  # `hostname` names a folder of hosts/; `modules` are added to it. A flake of one's own may pass `host`
  # (any module) in place of that folder, and in `openNames` top-level names that modules of other inputs
  # would declare. Gives { config; options; pkgs; lib; extendModules; }.
  # Throws on an unknown host, on a conflict and, when the toplevel is read, on a failed assertion.
  labSystem =
    { hostname
    , host ? ../../hosts + "/${hostname}"
    , modules ? [ ]
    , specialArgs ? { }
    , openNames ? [ ]
    , system ? "x86_64-linux"
    , pkgs ? import ./pkgs.nix { inherit lib system; }
    }:
    let
      eval = lib.evalModules {
        specialArgs = {
          inherit lib openNames;
          # folder of stand-ins for the files of NixOS that hosts import by path
          modulesPath = toString ./stand-ins;
        } // specialArgs;
        modules = [ host ../modules ../roles ./nixos.nix ./lab.nix { _module.args.pkgs = lib.mkDefault pkgs; } ]
          ++ modules
          # nix/lab/guest turns options into the units and files of Debian
          ++ lib.optional (builtins.pathExists ./guest/default.nix) ./guest;
      };
      result = eval: {
        inherit (eval) config options;
        inherit (eval._module.args) pkgs;
        inherit lib;
        extendModules = args: result (eval.extendModules args);
      };
    in
    result eval;
}
