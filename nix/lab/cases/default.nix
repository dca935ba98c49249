# What the lab's cases change of a flake: its outputs, with what lies in hosts/ on top of each host that is named there.
# Copied into the remote that guests upgrade from, as `world`, together with one of debian.nix and nixos.nix as guest.nix.
outputs:
let
  own = name: ./hosts + "/${name}.nix";
  # a host of a flake that has never heard of the lab gets there what `deploy` gave it
  prepare =
    if builtins.pathExists ./foreign.nix then
      import ./foreign.nix {
        vm = ./vm.nix;
        disko = throw "Nothing in a guest makes an image";
        imageSize = null;
        emulated = false;
      }
    else
      host: host;
  changed =
    prepared: name: host:
    if builtins.pathExists (own name) then
      (prepared host).extendModules {
        modules = [
          ./host.nix
          (own name)
        ];
      }
    else
      host;
  kinds = {
    labConfigurations = host: host;
    nixosConfigurations = prepare;
  };
in
outputs
// builtins.mapAttrs (kind: prepared: builtins.mapAttrs (changed prepared) outputs.${kind}) (
  builtins.intersectAttrs outputs kinds
)
