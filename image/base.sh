#!/bin/sh
# Makes the plain Debian tree of the node image: the packages of packages.txt, without manuals and translations. And
# without chardet: requests would load it beside charset_normalizer, for 2.5 MiB in each process, and needs only one.
# Consul comes from the suite that apt/consul names, on the same mirror as everything: the given one, or the one that
# mmdebstrap takes by itself, as on a machine of another distribution.
#   base.sh ROOT SUITE [APT SOURCE…]
set -eu
here=$(dirname "$(readlink -f "$0")") root=$1
packages=$(sed '/^#/d; /^$/d' "$here/packages.txt" | paste -sd,)
consul_suite=$(sed -n 's/^Pin: release n=//p' "$here/apt/consul" | head -n 1)

# The remaining arguments are mmdebstrap's own: SUITE TARGET [APT SOURCE…]
suite=$2
shift 2
exec mmdebstrap --mode=root --variant=minbase --format=directory \
  --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --include="$packages" \
  --setup-hook='mkdir -p "$1/etc/apt/preferences.d"' --setup-hook="copy-in '$here/apt/consul' /etc/apt/preferences.d" \
  --setup-hook="cd \"\$1/etc/apt\" && sed -n 's/ $suite main\$/ $consul_suite main/p' sources.list >sources.list.d/consul.list" \
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
  --customize-hook='rm -r "$1"/usr/lib/python3/dist-packages/chardet' \
  "$suite" "$root" "$@"
