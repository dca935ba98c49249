#!/bin/sh
# Makes <root>/lab/packages/<package>/bin for each Debian package of <root>, with links to the programs of all
# packages of the same source, which is what a package of nixpkgs holds. Units find what they name there and no
# more, as on NixOS. Runs as the image is built, and once in a VM whose disk is of an image from before.
#   $1 root
set -eu
cd "$1"
rm -rf lab/sources lab/packages.new
mkdir -p lab/packages.new

dpkg-query --admindir=var/lib/dpkg -W -f '${source:Package} ${Package}\n' |
  while read -r source package; do
    mkdir -p "lab/sources/$source/bin"
    ln -s "../sources/$source" "lab/packages.new/$package"
    dpkg-query --admindir=var/lib/dpkg -L "$package" | sed -nE 's|^(/usr)?/s?bin/([^/]+)$|\2|p' |
      while read -r name; do
        for file in "usr/bin/$name" "usr/sbin/$name"; do
          [ ! -e "$file" ] || ln -sf "/$file" "lab/sources/$source/bin/"
        done
      done
  done
# names that several packages have a program for, such as awk, go with the one that was chosen
for link in usr/bin/* usr/sbin/*; do
  alternative=$(readlink "$link") || continue
  case $alternative in /etc/alternatives/*) ;; *) continue ;; esac
  chosen=$(readlink ".$alternative")
  for file in "lab/sources/"*"/bin/${chosen##*/}"; do
    [ ! -L "$file" ] || ln -sf "/$link" "${file%/*}/"
  done
done
for source in lab/sources/*; do
  for place in share lib libexec; do ln -s "/usr/$place" "$source/$place"; done
  ln -s bin "$source/sbin"
done
# what nixpkgs has in packages where Debian has it in others
ln -sf /usr/bin/bash lab/sources/bash/bin/sh
ln -sf /usr/bin/kill lab/sources/coreutils/bin/kill
# whole or not at all
rm -rf lab/packages
mv lab/packages.new lab/packages
