{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs";
  outputs = inputs: import ./outputs.nix inputs;
}
