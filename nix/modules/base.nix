# What every host has: flakes, and the tools that its user and its agents work with.
{ pkgs, ... }:
{
  # without these a plain `nix build .#…` inside the host fails
  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];

  programs.git.enable = true;
  environment.systemPackages = [
    pkgs.jujutsu
    pkgs.chezmoi
  ];
}
