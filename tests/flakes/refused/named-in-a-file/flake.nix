{
  outputs = inputs: inputs.fleet.lib.compose { inherit inputs; modules = [ ./fleet/all.nix ]; };
}
