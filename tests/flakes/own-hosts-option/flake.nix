{
  outputs =
    inputs@{ self, flake-utils-plus, ... }:
    flake-utils-plus.lib.mkFlake {
      inherit self inputs;
      hosts.gull.modules = [ ./hosts/gull.nix ];
      hosts.tern.modules = [ ./hosts/tern.nix ];
    };
}
