self:
self.inputs.crew.lib.clan {
  inherit self;
  machines.moth = { };
}
