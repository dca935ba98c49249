{ inputs, ... }:
{
  flake.nixosConfigurations.fennel = inputs.nixpkgs.lib.nixosSystem {
    modules = [ ./_hardware.nix ];
  };
}
