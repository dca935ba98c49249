# /etc/profile sets PATH anew in a login shell; the generation's commands come first
PATH=/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
