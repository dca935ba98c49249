{
  outputs = { nixpkgs, ... }: let mk = name: nixpkgs.lib.nixosSystem { modules = [ (./hosts + "/${name}") ]; }; in {
    nixosConfigurations = { one = mk "one"; two = mk "two"; }; # all of them
    packages = { };
  };
}
