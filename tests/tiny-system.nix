# A system that is small enough to be built from nothing: { line, busybox, kernel, initrd, loader } -> { toplevel;
# systemd; }, the last four files. It says what it finds on its disk and powers off.
{
  line,
  busybox,
  kernel,
  initrd,
  loader,
}:
let
  make =
    name: text: script:
    derivation {
      inherit name text;
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = [
        "-c"
        script
      ];
    };
  file = path: builtins.path { inherit path; name = baseNameOf path; };
  tools = make "busybox" "" "mkdir -p $out/bin; cp ${file busybox} $out/bin/busybox";
  box = "${tools}/bin/busybox";
  linux = make "linux-1.0" "" "mkdir $out; cp ${file kernel} $out/bzImage";
  # as NixOS has it: a link to a file beside it
  stage1 = make "initrd-linux-1.0" "" "mkdir $out; cp ${file initrd} $out/initrd.cpio; ln -s initrd.cpio $out/initrd";
  systemd = make "systemd-1" "" ''
    mkdir -p $out/lib/systemd/boot/efi
    cp ${file loader} $out/lib/systemd/boot/efi/systemd-bootx64.efi
  '';
  # names that a shell or debugfs would take apart
  odd = make "odd" "" ''
    mkdir -p "$out/a b/it\"s"
    echo odd >"$out/a b/it\"s/c'd"
    ln -s /no/where "$out/a b/gone"
  '';
  out = builtins.placeholder "out";
  init = ''
    #!${box} sh
    for word in mount echo cat readlink ls df awk poweroff; do alias $word="${box} $word"; done
    mount -t proc proc /proc
    mount -t vfat /dev/vda1 /boot
    echo "tiny: $(cat ${out}/line)"
    echo "tiny: profile $(readlink /nix/var/nix/profiles/system)"
    echo "tiny: entries $(ls /boot/loader/entries)"
    echo "tiny: $(cat ${odd}/a*/it*/c*)"
    echo "tiny: root of $(df -m / | awk 'END { print $2 }') MiB"
    poweroff -f
  '';
in
{
  inherit systemd;
  toplevel = make "nixos-system-tiny" init ''
    mkdir $out
    ln -s ${linux}/bzImage $out/kernel
    ln -s ${stage1}/initrd $out/initrd
    ln -s ${systemd} $out/systemd
    echo console=ttyS0 >$out/kernel-params
    echo '${line}' >$out/line
    echo "$text" >$out/init
    chmod 755 $out/init
  '';
}
