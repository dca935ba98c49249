# Where commands are looked for in the guest by sudo, over SSH, and by units that have /run/current-system/sw on
# their path: what the generation brings, then Debian. The image's etc/environment says the same for logins at
# the console.
"/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
