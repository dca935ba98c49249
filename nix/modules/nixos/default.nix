# What is for NixOS only: it needs a module of another flake input (disko, sops-nix) or udev and networkd.
{
  imports = [
    ./disko.nix
    ./lab.nix
    ./secrets.nix
  ];
}
