# Empty on purpose. NixOS's profile adds virtio modules to the initrd; the lab's kernel has them built
# in or loads them from the image's initrd. This file exists because generated hardware configurations
# import it through `modulesPath`.
{ }
