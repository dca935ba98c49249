{
  inputs.utils.url = "github:numtide/flake-utils";
  inputs.stable.url = "github:NixOS/nixpkgs/nixos-26.05";
  outputs =
    inputs@{ self, ... }:
    let
      all.corncrake = import ./corncrake.nix inputs;
    in
    {
      nixosConfigurations = if self ? only then self.only else all;
    };
}
