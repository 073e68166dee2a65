#!/usr/bin/env bash
# Builds the modules for the installed FRR from Debian's source package of it. The package's own files stay untouched: load a module by its path.
#
#   grpc.so             the northbound gRPC module that Debian's package leaves out; `staticd -M /path/grpc.so:50051`
#   kedge_bgpd_hold.so  from bgpd-hold/; `bgpd -M /path/kedge_bgpd_hold.so:0`
#
# Each is kept for each version of the package, in the build folder and in a cache of the machine:
#   <build folder>/frr/<package version>/<module>, and the link <build folder>/frr/<module> to it
# Everything else happens in a temporary folder; /etc/apt and apt's package lists are only read.
#
#   KEDGE_BUILD_DIR   the build folder (default: build/ beside this folder)
#   KEDGE_CACHE_DIR   the cache of the machine (default: $XDG_CACHE_HOME/kedge or /var/cache/kedge)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
hold_source=$root/frr/bgpd-hold/kedge_bgpd_hold.c
# Part of the cache's key: raise the number when this script builds a module from the same sources differently.
declare -A recipes=(
    [grpc.so]=1
    [kedge_bgpd_hold.so]=1-$(sha256sum <"$hold_source" | cut -c 1-12)
)
build_dir=${KEDGE_BUILD_DIR:-$root/build}
cache_dir=${KEDGE_CACHE_DIR:-${XDG_CACHE_HOME:-/var/cache}/kedge}
frr_programs=/usr/lib/frr
temporary=

say() { printf 'frr modules: %s\n' "$*"; }
fail() {
    printf 'frr modules: %s\n' "$*" >&2
    exit 1
}

clean_up() {
    if [[ -n $temporary ]]; then
        rm -rf "$temporary"
    fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Runs one step, its output into a log that is shown only when the step fails.
step() {
    local name=$1 log
    shift
    log=$temporary/${name// /-}.log
    if ! "$@" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "failed to $name (its last lines stand above)"
    fi
}

# apt's configuration of this machine, with source packages switched on and every place that apt writes to under $1.
write_apt_configuration() {
    local apt=$1 file
    mkdir -p "$apt"/{apt.conf.d,sources.list.d,lists/partial,cache/archives/partial}
    for file in /etc/apt/apt.conf.d/*; do
        [[ ! -f $file ]] || cp "$file" "$apt/apt.conf.d/"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [[ ! -f $file ]] || sed -E 's/^Types:.*/Types: deb-src/I' "$file" >"$apt/sources.list.d/${file##*/}"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ ! -f $file ]] || sed -nE 's/^[[:space:]]*deb(-src)?([[:space:]])/deb-src\2/p' "$file" | sort -u >"$apt/sources.list.d/${file##*/}"
    done
    cat >"$apt/apt.conf.d/zz-kedge" <<-CONFIGURATION
		Dir::Etc::sourcelist "/dev/null";
		Dir::Etc::sourceparts "$apt/sources.list.d";
		Dir::State::Lists "$apt/lists";
		Dir::Cache "$apt/cache";
		Acquire::Languages "none";
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
	CONFIGURATION
    printf 'Dir::Etc::Parts "%s";\n' "$apt/apt.conf.d" >"$apt/apt.conf"
}

fetch_source() {
    local source_version=$1 apt=$temporary/apt
    write_apt_configuration "$apt"
    export APT_CONFIG=$apt/apt.conf
    mkdir "$temporary/download"
    # apt downloads as the user _apt.
    chmod 755 "$temporary"
    if [[ $EUID -eq 0 ]] && id -u _apt >/dev/null 2>&1; then
        chown _apt "$temporary/download"
    fi

    # apt calls an update a success even when it could fetch nothing, and a failure when a source that is not needed here is broken.
    apt-get -q update >"$temporary/update.log" 2>&1 || true
    if ! compgen -G "$apt/lists/*_Sources*" >/dev/null; then
        grep -E '^(Err|E|W):' "$temporary/update.log" | head -n 10 >&2 || true
        fail "failed to fetch the lists of source packages from the sources in /etc/apt (is the network there?)"
    fi
    (
        cd "$temporary/download"
        step "fetch the source of frr $source_version" apt-get -q source --download-only --only-source "frr=$source_version"
    ) || fail "the package archives may have a newer frr by now; if so, run: apt-get update && apt-get install frr"
    unset APT_CONFIG
    # apt has checked the files against the archive's signature already.
    step "unpack the source" dpkg-source --no-check -x "$temporary/download"/frr_*.dsc "$temporary/source"
}

# Configures as Debian did, read from the installed daemon, but for the parts that no module here touches: each of them would
# need more packages. frr's clippy, a code generator, is not needed for these files.
configure_source() {
    local options=()
    eval "options=($("$frr_programs/staticd" --version | sed -n '/^configured with:/{n;p}'))"
    [[ ${#options[@]} -gt 0 ]] || fail "$frr_programs/staticd --version does not tell how it was configured"
    cd "$temporary/source"
    step "bootstrap the source" ./bootstrap.sh
    step "configure the source" ./configure "${options[@]}" --enable-grpc --disable-static \
        --disable-vtysh --disable-doc --disable-doc-html --disable-snmp --disable-rpki --without-libpam --with-clippy=/bin/true \
        CFLAGS=-O2 CXXFLAGS=-O2
    step "generate the headers" make lib/route_types.h
}

compile_grpc.so() {
    local output=$1 jobs library_dir
    jobs=$(nproc)
    library_dir=/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)/frr
    cd "$temporary/source"
    local objects=(
        lib/grpc_la-northbound_grpc.lo
        grpc/libfrrgrpc_pb_la-frr-northbound.pb.lo
        grpc/libfrrgrpc_pb_la-frr-northbound.grpc.pb.lo
    )
    step "generate the messages" make grpc/frr-northbound.pb.cc grpc/frr-northbound.grpc.pb.cc
    step "compile grpc.so" make -j"$jobs" "${objects[@]}"
    local linkable=() object libraries
    for object in "${objects[@]}"; do
        linkable+=("${object%/*}/.libs/$(basename "$object" .lo).o")
    done
    read -ra libraries < <(pkg-config --libs grpc++ protobuf libyang)
    step "link grpc.so" g++ -shared -o "$output" "${linkable[@]}" -Wl,--as-needed,-z,defs,-z,relro,-z,now \
        "${libraries[@]}" "$library_dir/libfrr.so.0" "-Wl,-rpath,$library_dir"
    strip --strip-unneeded "$output"
}

# bgpd and libfrr, which load it, have all that it leaves undefined.
compile_kedge_bgpd_hold.so() {
    cd "$temporary/source"
    step "compile kedge_bgpd_hold.so" gcc -std=gnu11 -O2 -fPIC -shared -DHAVE_CONFIG_H -I. -Iinclude -Ilib -Ilib/assert \
        -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
        "-ffile-prefix-map=$root/=" -o "$1" "$hold_source" -Wl,-z,relro,-z,now
    strip --strip-unneeded "$1"
}

# Loads the module into the installed daemon, in a network namespace of its own, until it does what it is for.
check_module() {
    local file=$1 name=$2 run=$temporary/run
    [[ $EUID -eq 0 ]] || fail "trying the module out needs root; run: sudo make setup"
    rm -rf "$run"
    mkdir "$run"
    chmod 755 "$temporary"
    chown frr:frr "$run"
    step "load $name" unshare --net /usr/bin/python3 "$root/frr/check_module.py" "$frr_programs" "$name" "$file" "$run"
}

# Puts file $1 at path $2 in one step, so that nobody ever sees half of it.
publish() {
    mkdir -p "${2%/*}"
    install -m 644 "$1" "$2.new"
    mv -f "$2.new" "$2"
}

version=$(dpkg-query -W -f '${Version}' frr 2>/dev/null) || version=
[[ -n $version && -x $frr_programs/staticd ]] || fail "FRR is not installed; run: make setup"
case $version in
    8.4.4-*) ;;
    *) fail "FRR $version is installed; Kedge builds modules for Debian 12's FRR 8.4.4 only" ;;
esac
architecture=$(dpkg-query -W -f '${Architecture}' frr)
folder=$build_dir/frr/$version

cached() { printf '%s' "$cache_dir/frr/${version}_${architecture}_${recipes[$1]}/$1"; }

up_to_date() { [[ -s $folder/$1 && $(cat "$folder/$1.recipe" 2>/dev/null) == "${architecture}_${recipes[$1]}" ]]; }

point_link() {
    printf '%s\n' "${architecture}_${recipes[$1]}" >"$folder/$1.recipe"
    ln -sfn "$version/$1" "$build_dir/frr/$1"
}

# Only what this user has put into the cache is loaded again.
take_from_cache() {
    local file
    file=$(cached "$1")
    [[ -s $file && -O $file ]] || return 1
    if ! (check_module "$file" "$1"); then
        say "$file does not load, building it again" >&2
        return 1
    fi
    publish "$file" "$folder/$1"
    point_link "$1"
    say "$1 taken from $file for frr $version"
}

build() {
    local file=$temporary/$1
    ("compile_$1" "$file")
    check_module "$file" "$1"
    if ! publish "$file" "$(cached "$1")" 2>/dev/null; then
        say "cannot write $(cached "$1"), so it is kept in the build folder only" >&2
    fi
    publish "$file" "$folder/$1"
    point_link "$1"
    say "$1 built and loaded: $folder/$1"
}

missing=()
for module in grpc.so kedge_bgpd_hold.so; do
    if up_to_date "$module"; then
        ln -sfn "$version/$module" "$build_dir/frr/$module"
    else
        missing+=("$module")
    fi
done
if [[ ${#missing[@]} -eq 0 ]]; then
    say "up to date for frr $version"
    exit 0
fi

mkdir -p "$build_dir/frr"
exec 9>"$build_dir/frr/lock"
flock 9
temporary=$(mktemp -d)
# Compilers and autoconf that are interrupted leave their own temporary files behind: here they go too.
export TMPDIR=$temporary/tmp
mkdir -m 1777 "$TMPDIR"

to_build=()
for module in "${missing[@]}"; do
    take_from_cache "$module" || to_build+=("$module")
done
if [[ ${#to_build[@]} -gt 0 ]]; then
    say "building ${to_build[*]} for frr $version from Debian's source package (about half a minute)"
    fetch_source "$(dpkg-query -W -f '${source:Version}' frr)"
    (configure_source)
    for module in "${to_build[@]}"; do
        build "$module"
    done
fi
