{
  outputs =
    { nixpkgs, ... }:
    {
      inherit (import ./nixos.nix { inherit (nixpkgs) lib; }) nixosConfigurations nixosModules;
    };
}
