#!/bin/sh
# Outlives `cargo xtask` to clean up after it, however it ended: return, panic, Ctrl-C, SIGTERM or SIGKILL.
#
# Usage: undertaker.sh DIRECTORY, with one line on standard input per thing that happened:
#   watch SIGNAL:PID      this process (a negative PID: this process group) ends with us, by this signal
#   forget SIGNAL:PID     it has ended by itself
# Standard input is a pipe from xtask; the kernel closes it when xtask is gone. Then everything still watched is
# ended, and DIRECTORY deleted.
trap '' HUP INT TERM

wards=
while read -r verb ward; do
    case $verb in
    watch) wards="$wards $ward" ;;
    forget)
        kept=
        for other in $wards; do [ "$other" = "$ward" ] || kept="$kept $other"; done
        wards=$kept
        ;;
    esac
done

alive() {
    for ward in $wards; do kill -s 0 -- "${ward#*:}" 2>/dev/null && return 0; done
    return 1
}

for ward in $wards; do kill -s "${ward%%:*}" -- "${ward#*:}" 2>/dev/null; done
tries=200 # of 0.05 s: ten seconds for a clean end
while [ "$tries" -gt 0 ] && alive; do
    tries=$((tries - 1))
    sleep 0.05
done
for ward in $wards; do kill -s KILL -- "${ward#*:}" 2>/dev/null; done
rm -rf -- "$1"
