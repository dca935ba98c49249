{
  outputs =
    { nixpkgs, ... }:
    let
      make = of: nixpkgs.lib.nixosSystem { inherit (of) system modules; };
    in
    {
      nixosConfigurations = {
        jackdaw = make (import ./hosts/jackdaw.nix);
        rook = make (import ./hosts/rook.nix);
      };
    };
}
