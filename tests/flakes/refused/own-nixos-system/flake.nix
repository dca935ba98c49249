{
  outputs =
    { nixpkgs, ... }:
    let
      mine.nixosSystem = { path }: nixpkgs.lib.nixosSystem { modules = [ path ]; };
      plover = mine.nixosSystem { path = ./plover; };
    in
    {
      nixosConfigurations = {
        inherit plover;
      };
    };
}
