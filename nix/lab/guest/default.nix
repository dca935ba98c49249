# What makes Debian behave as the host's NixOS options say. These modules exist in the lab only; they
# read options and add units and files, and never define an option that a host compares with NixOS.
{ ... }:
{
  imports = [
    ./auto-upgrade.nix
    ./options.nix
    ./network.nix
    ./nix.nix
    ./services.nix
    ./ssh.nix
    ./system.nix
  ];
}
