# A service decrypts a secret with the key of this host
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
  # only for the example: a real key belongs on the host, not in the flake
  environment.etc."secret.key".source = ./secret/key.txt;
}
