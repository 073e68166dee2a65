#!/usr/bin/env bash
# Installs the Debian packages of a list that are missing: setup.sh [LIST], in this folder (default: packages.txt; bench-packages.txt is
# what `make bench` compares Kedge with). Safe to repeat; silent about apt unless it fails.
# Leaves every service as it found it: freshly installed, FRR, strongSwan, GoBGP, etcd and others are neither started nor enabled at boot.
#
#   KEDGE_ANY_SYSTEM=1  go on although this is not Debian 12
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
list=$here/${1:-packages.txt}
policy=/usr/sbin/policy-rc.d
# Packages that bring a service along, which the labs do not want: they start the daemons themselves.
declare -A services=([frr]=frr [charon-systemd]=strongswan [hostapd]=hostapd [wpasupplicant]=wpa_supplicant
    [gobgpd]=gobgpd [exabgp]=exabgp [etcd-server]=etcd [iperf3]=iperf3)
apt_log=
saved_policy=
policy_is_ours=

say() { printf 'set-up: %s\n' "$*"; }
fail() {
    printf 'set-up: %s\n' "$*" >&2
    exit 1
}

clean_up() {
    if [[ -n $policy_is_ours ]]; then
        rm -f "$policy"
    fi
    if [[ -n $saved_policy ]]; then
        mv -f "$saved_policy" "$policy"
    fi
    if [[ -n $apt_log ]]; then
        rm -f "$apt_log"
    fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

check_system() {
    [[ -z ${KEDGE_ANY_SYSTEM:-} ]] || return 0
    local id version_id name
    id=$(. /etc/os-release 2>/dev/null && printf '%s' "${ID:-}")
    version_id=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_ID:-}")
    name=$(. /etc/os-release 2>/dev/null && printf '%s' "${PRETTY_NAME:-}")
    if [[ $id != debian || $version_id != 12 ]]; then
        fail "this is ${name:-an unknown system}; Kedge needs Debian 12 (set KEDGE_ANY_SYSTEM=1 to try all the same)"
    fi
}

wanted_packages() { sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$list"; }

# Prints those of the named packages that are not installed.
missing_of() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
    done
}

# Debian starts a service as soon as its package is installed, unless policy-rc.d forbids it (exit status 101).
forbid_service_starts() {
    if [[ -x $policy ]]; then
        local answer=0
        "$policy" any start >/dev/null 2>&1 || answer=$?
        [[ $answer -ne 101 ]] || return 0
        saved_policy=$(mktemp "$policy.XXXXXX")
        mv -f "$policy" "$saved_policy"
    fi
    policy_is_ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

disable_at_boot() {
    update-rc.d "$1" disable >/dev/null 2>&1 || true
    systemctl --quiet disable "$1" >/dev/null 2>&1 || true
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >"$apt_log" 2>&1
}

install_packages() {
    local packages=("$@") package unknown=()
    apt_log=$(mktemp)

    if ! apt -o APT::Update::Error-Mode=any update; then
        say "apt-get update failed, going on with the package lists at hand: $(grep -m1 '^[EW]:' "$apt_log" || true)" >&2
    fi
    for package in "${packages[@]}"; do
        apt-cache show --no-all-versions "$package" >/dev/null 2>&1 || unknown+=("$package")
    done
    if [[ ${#unknown[@]} -gt 0 ]]; then
        fail "apt knows no package named: ${unknown[*]} (are the sources of Debian 12 'main' in /etc/apt, and is the network there?)"
    fi

    local new_services=()
    for package in "${packages[@]}"; do
        [[ -z ${services[$package]:-} ]] || new_services+=("${services[$package]}")
    done
    [[ ${#new_services[@]} -eq 0 ]] || forbid_service_starts

    local status=0 still_missing
    apt install --no-install-recommends "${packages[@]}" || status=$?
    mapfile -t still_missing < <(missing_of "${packages[@]}")
    if [[ $status -ne 0 || ${#still_missing[@]} -gt 0 ]]; then
        tail -n 15 "$apt_log" >&2
        fail "apt-get install failed; not installed: ${still_missing[*]:-nothing, but see above}"
    fi

    local service
    for service in "${new_services[@]}"; do
        disable_at_boot "$service"
        say "the service $service stays off, the labs start its daemons themselves (to have it: systemctl enable $service)"
    done
}

[[ -r $list ]] || fail "there is no list $list"
check_system
mapfile -t wanted < <(wanted_packages)
mapfile -t missing < <(missing_of "${wanted[@]}")
if [[ ${#missing[@]} -eq 0 ]]; then
    say "everything is installed (${#wanted[@]} packages)"
    exit 0
fi
say "${#missing[@]} packages to install: ${missing[*]}"
[[ $EUID -eq 0 ]] || fail "installing needs root; run: sudo make setup"
install_packages "${missing[@]}"
say "everything is installed (${#wanted[@]} packages)"
