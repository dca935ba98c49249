{
  description = "Hosts through one function of a hostname";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs, ... }@inputs:
    let
      mkHost =
        { hostname }:
        nixpkgs.lib.nixosSystem {
          specialArgs = { inherit inputs; };
          modules = [ ./hosts/${hostname} ];
        };
    in
    {
      nixosConfigurations = {
        malphas = mkHost { hostname = "malphas"; };
        guppy = mkHost { hostname = "guppy"; };
        griefling = mkHost { hostname = "griefling"; };
        # ... other hosts
      };

      formatter.x86_64-linux = nixpkgs.legacyPackages.x86_64-linux.nixfmt;
    };
}
