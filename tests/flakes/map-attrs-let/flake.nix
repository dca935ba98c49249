{
  outputs =
    inputs:
    let
      inherit (inputs.nixpkgs) lib;
      hosts.teal.system = "x86_64-linux";
      hosts.vole.system = "aarch64-linux";
      hosts.wren.system = "x86_64-linux";
      toSystem = hostName: host: lib.nixosSystem { inherit (host) system; modules = [ ./${hostName} ]; };
    in
    {
      nixosConfigurations = lib.attrsets.mapAttrs toSystem hosts;
    };
}
