{
  outputs =
    { self, nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      machines = [
        { hostname = "loch"; arch = "x86_64"; user = "loch"; }
        { hostname = "moor"; arch = "x86_64"; user = "loch"; }
      ];
      build = machine: lib.nameValuePair machine.hostname (lib.nixosSystem {
        system = "${machine.arch}-linux";
        modules = [ ./machines/${machine.hostname} ];
      });
    in
    {
      nixosConfigurations = lib.listToAttrs (lib.forEach machines build);
    };
}
