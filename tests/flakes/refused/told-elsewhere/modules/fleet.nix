{ ... }:
{
  easy-hosts = {
    autoConstruct = true;
    path = ../boxes;
    onlySystem = "x86_64-nixos";
  };
}
