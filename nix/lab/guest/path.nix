# PATH in the guest for sudo, SSH, and units that have /run/current-system/sw on their path: the generation's
# programs, then Debian's. The image's etc/environment sets the same for logins at the console.
"/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
