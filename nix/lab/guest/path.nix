# Where commands are looked for in the guest, by units, by sudo and over SSH: what the generation
# brings, then Debian. The image's etc/environment says the same for logins at the console.
"/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
