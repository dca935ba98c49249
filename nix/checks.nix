# What `nix flake check` runs besides evaluating the hosts: seconds, and no VM.
{ pkgs, self }:
{
  agents = pkgs.runCommand "agents-shellcheck" { nativeBuildInputs = [ pkgs.shellcheck ]; } ''
    shellcheck ${./agents}/*.sh
    touch $out
  '';

  format = (import ./format.nix { inherit pkgs self; }).check;

  # if a host had different names in the two guests, no comparison of them would be valid
  hosts = pkgs.writeText "hosts" (
    builtins.concatStringsSep "\n" (
      builtins.attrValues (
        builtins.mapAttrs (
          name: host:
          assert host.config.networking.hostName == self.labConfigurations.${name}.config.networking.hostName;
          name
        ) self.nixosConfigurations
      )
    )
  );
}
