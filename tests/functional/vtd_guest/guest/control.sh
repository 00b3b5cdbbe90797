# SPDX-License-Identifier: GPL-2.0-or-later
#
# One line in: "NUMBER COMMAND".  Out: what the command prints, then a line
# "@@END NUMBER STATUS".  A line "@@READY" says that the guest has booted.

. /lib/checks.sh
stty raw -echo
echo "@@READY $(uname -r) up $(cut -d' ' -f1 /proc/uptime)"
while read -r number command; do
    [ -n "$command" ] || continue
    (eval "$command") < /dev/null 2>&1
    printf '\n@@END %s %s\n' "$number" "$?"
done
