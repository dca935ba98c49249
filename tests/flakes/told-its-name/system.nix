{ name, ... }:
{
  imports = [ (./machine + "/${name}") ];
}
