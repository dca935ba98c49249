{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
    in
    {
      nixosConfigurations =
        lib.genAttrs systems (system: lib.nixosSystem { modules = [ ./vm.nix ]; })
        // {
          godwit = lib.nixosSystem { modules = [ ./hosts/godwit ]; };
          ruff = lib.nixosSystem { modules = [ ./hosts/ruff ]; };
        };
    };
}
