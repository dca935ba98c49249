{ system, ... }:
{
  merganser = system [ ../hosts/merganser ];
  garganey = system [ ../hosts/garganey ];
}
