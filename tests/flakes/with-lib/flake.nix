{
  outputs =
    { nixpkgs, ... }@inputs:
    with nixpkgs.lib;
    with builtins;
    {
      nixosConfigurations = mapAttrs (name: modules: nixosSystem { modules = modules ++ [ { networking.hostName = name; } ]; }) {
        pike = [ ./pike.nix ];
        quail = [ ./quail.nix ];
      };
    };
}
