{
  outputs =
    { nixpkgs, ... }:
    let
      hosts.okra.system = "x86_64-linux";
      hosts.okra.modules = [ ./okra.nix ];
    in
    {
      nixosConfigurations = builtins.mapAttrs (_: host: nixpkgs.lib.nixosSystem host) hosts;
    };
}
