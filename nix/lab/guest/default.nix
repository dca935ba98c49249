# These modules make Debian behave as the host's NixOS options say. They exist only in the lab; they read
# options and add units and files, and never define an option that is compared with NixOS.
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
