# shellcheck shell=sh
# A login shell sets PATH anew; the generation's commands come first
PATH=/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
