# What needs a module of another flake input (disko, sops-nix), so NixOS only.
{
  imports = [
    ./disko.nix
    ./secrets.nix
  ];
}
