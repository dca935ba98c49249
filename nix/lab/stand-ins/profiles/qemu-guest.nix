# Empty on purpose. NixOS's profile adds virtio modules to the initrd; the lab's kernel has them built
# in or loads them from an initrd of its own. It exists because generated hardware configurations
# import it through `modulesPath`.
{ }
