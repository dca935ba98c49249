# A secret that a service opens with the key of this host
{ pkgs, ... }:
{
  systemd.services.open-secret = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      UMask = "0077";
      ExecStart = "${pkgs.age}/bin/age --decrypt --identity /etc/secret.key --output /run/secret ${./secret/now.age}";
    };
  };
  # for show: a key has no place in a flake, but beside it on the host
  environment.etc."secret.key".source = ./secret/key.txt;
}
