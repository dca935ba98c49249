{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs.lib) ;
      inherit ;
      system = nixpkgs.lib.nixosSystem;
    in
    {
      nixosConfigurations.ouzel = system { modules = [ ./ouzel.nix ]; };
    };
}
