# labSystem: evaluates a host for the lab's Debian guest, from the same files as for NixOS and without flake inputs.
let
  lib = import ./lib;
in
{
  inherit lib;

  # `hostname` names a folder of hosts/. Another flake passes its host (any module) as `host`, its
  # replacement for nix/modules and nix/roles as `base`, further modules as `modules`, and in `openNames`
  # the top-level option names that modules of its other inputs would declare.
  # Returns { config; options; pkgs; lib; extendModules; }. Throws on an unknown host, on conflicting
  # definitions and, when the toplevel is read, on a failed assertion.
  labSystem =
    {
      hostname,
      host ? ../../hosts + "/${hostname}",
      base ? [
        ../modules
        ../roles
      ],
      modules ? [ ],
      specialArgs ? { },
      openNames ? [ ],
      system ? "x86_64-linux",
      pkgs ? import ./pkgs.nix { inherit lib system; },
    }:
    let
      eval = lib.evalModules {
        specialArgs = {
          inherit lib openNames;
          # folder with stand-ins for the NixOS files that hosts import by path
          modulesPath = toString ./stand-ins;
        }
        // specialArgs;
        modules = [
          host
        ]
        ++ base
        ++ modules
        # nix/lab/guest turns the options into units and files for Debian
        ++ [
          ./nixos.nix
          ./lab.nix
          ./guest
          { _module.args.pkgs = lib.mkDefault pkgs; }
        ];
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
