{
  outputs =
    { nixpkgs, ... }:
    let
      arm = "aarch64-linux";
      system = platform: modules: nixpkgs.lib.nixosSystem { system = platform; inherit modules; };
    in
    {
      nixosConfigurations = {
        wader = system arm [ ./hosts/wader ];
        stilt = nixpkgs.lib.nixosSystem { modules = [ ./hosts/stilt ]; };
        avocet = nixpkgs.lib.nixosSystem {
          modules = [ ./hosts/avocet ./common.nix ];
        };
        knot = system "aarch64-linux" [ ./hosts/knot ];
      };
    };
}
