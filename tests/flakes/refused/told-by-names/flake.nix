{
  outputs =
    inputs@{ flake-parts, nixpkgs, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.easy-hosts.flakeModule ];
      easy-hosts.hosts = nixpkgs.lib.genAttrs [ "crossbill" "hawfinch" ] (name: { path = ./hosts + "/${name}"; });
    };
}
