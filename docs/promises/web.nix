# A web service, and the check that decides whether an upgrade stays
{ pkgs, ... }:
{
  environment.etc."web/health".text = "ok\n";
  systemd.services.web = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox httpd -f -p 8080 -h /etc/web";
  };
  myModules.services.autoUpgrade.validationChecks = [
    "curl --silent --fail http://127.0.0.1:8080/health | grep -qx ok"
  ];
}
