{ }: { imports = [ ./desktop ./laptop ]; }
