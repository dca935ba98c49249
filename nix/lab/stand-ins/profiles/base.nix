# Empty on purpose: what NixOS sets here concerns packages, firmware or hardware that the lab's image fixes.
{ }
