# Modules for NixOS only: they need another flake input (disko, sops-nix), or udev and networkd.
{
  imports = [
    ./disko.nix
    ./lab.nix
    ./secrets.nix
  ];
}
