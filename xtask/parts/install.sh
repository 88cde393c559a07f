#!/bin/sh
# Installs Debian packages for the tests, as root, so that none of their services starts, now or at the next boot.
#
# Usage: install.sh PACKAGE...
#
# Two guards stand while apt works and are taken away again however this script ends; a guard that was there before
# is the machine's own and stays as it was:
#   1. policy-rc.d answers 101 ("not allowed") whenever a package wants its service started;
#   2. a file in createcluster.d tells postgresql-common to make no cluster of its own.
set -eu

policy=/usr/sbin/policy-rc.d
cluster_rules=/etc/postgresql-common/createcluster.d
cluster_rule=$cluster_rules/pearlgate-tests.conf
ours=

undo() {
    # shellcheck disable=SC2086 # the names are ours and hold no blanks
    [ -z "$ours" ] || rm -f $ours
    # Only what is empty goes: on a machine without PostgreSQL these directories were ours too.
    rmdir "$cluster_rules" /etc/postgresql-common 2>/dev/null || true
}
trap undo EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if [ ! -e "$policy" ]; then
    ours="$ours $policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
if [ ! -e "$cluster_rule" ]; then
    ours="$ours $cluster_rule"
    mkdir -p "$cluster_rules"
    printf 'create_main_cluster = false\n' >"$cluster_rule"
fi

redis_was_there=no
[ ! -e /usr/bin/redis-server ] || redis_was_there=yes

export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"

# policy-rc.d held the service back today; nothing but this holds it back at the next boot.
if [ "$redis_was_there" = no ] && [ -e /usr/bin/redis-server ]; then
    if command -v systemctl >/dev/null; then
        systemctl disable redis-server.service
    else
        update-rc.d redis-server disable
    fi || echo "install.sh: could not keep redis-server from starting at the next boot" >&2
fi
