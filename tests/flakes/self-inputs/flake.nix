{
  outputs =
    { self, ... }:
    {
      nixosConfigurations = self.inputs.nixpkgs.lib.genAttrs [
        "ash"
        "elm"
      ] (name: self.inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/${name} ]; });
    };
}
