#!/usr/bin/env bash
# The first process of a lab node, in a container and in netlab's namespaces alike. It sets the kernel up for the node's role,
# applies the node's addresses, starts FRR and Kedge's daemons, restarts what dies, and tells when the node is ready.
#
#   KEDGE_ROLE             router, access-router, lm, host, mobile-node or mobile-router
#   KEDGE_GRPC_MODULE      FRR's gRPC module, for staticd of an access router
#   KEDGE_BGPD_HOLD        milliseconds that bgpd waits before best-path selection (default: bgpd's own 50, without a module of ours)
#   KEDGE_BGPD_HOLD_MODULE the module that can do so
#   KEDGE_LINK_SECONDS     how long the interfaces are waited for (default: 60)
#   /etc/kedge/network.ip  addresses, routes and links of the node, for `ip -batch`
#   /etc/kedge/ports       of a mobile node or router: its ports to access routers
#   /etc/kedge/lm.yaml, /etc/kedge/speaker.yaml
#                          the daemons' configuration; a file of the same name in /run/kedge takes its place from the daemon's next start on
#
#   /run/kedge/started     the kernel is set up, interfaces may come
#   /run/kedge/ready       the node does its work
#   /run/kedge/failed      the node cannot work; the file says why
#   /var/log/kedge         the logs of start.sh and of the daemons
set -uo pipefail

role=${KEDGE_ROLE:-}
network=/etc/kedge/network.ip
run=/run/kedge
logs=/var/log/kedge
daemons=()
bin=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/bin
PATH=$bin:$PATH

say() { printf '%(%FT%T)T %s\n' -1 "$*"; }

fail() {
    say "error: $*"
    printf '%s\n' "$*" >"$run/failed"
    # The node stays, so that its logs can be read and commands tried.
    sleep infinity &
    wait $!
    exit 1
}

runs_frr() { [[ $role == router || $role == access-router ]]; }
is_mobile() { [[ $role == mobile-node || $role == mobile-router ]]; }

# shellcheck disable=SC2317
stop() {
    say "stopping"
    if [[ ${#daemons[@]} -gt 0 ]]; then
        kill "${daemons[@]}" 2>/dev/null
    fi
    if runs_frr; then
        /usr/lib/frr/frrinit.sh stop >>"$logs/frr.log" 2>&1
    fi
    exit 0
}

set_sysctls() {
    local name
    for name in "$@"; do
        sysctl -qw "$name" 2>/dev/null || say "warning: the kernel does not take $name"
    done
}

set_kernel_up() {
    case $role in
        router | access-router)
            set_sysctls net.ipv6.conf.{all,default}.{forwarding=1,accept_ra=0,accept_redirects=0,accept_dad=0,seg6_enabled=1} \
                net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
            ;;
        lm | host)
            set_sysctls net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.{disable_ipv6=0,accept_ra=0,accept_redirects=0,accept_dad=0}
            ;;
        mobile-node)
            # The ports of the bridge are no hosts of their own: no access router may hear them.
            set_sysctls net.ipv6.conf.default.disable_ipv6=1
            ;;
        mobile-router)
            set_sysctls net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.{all,default}.{forwarding=1,accept_redirects=0,accept_dad=0}
            ;;
        *) fail "KEDGE_ROLE is '$role'; it must be router, access-router, lm, host, mobile-node or mobile-router" ;;
    esac
    ip link set lo up
    if is_mobile; then
        set_sysctls net.ipv6.conf.lo.disable_ipv6=0
    fi
}

# The interfaces that network.ip names.
interfaces() { sed 's/#.*//' "$network" | grep -oE '\beth[0-9]+\b' | sort -u; }

# In a container the links come after the first process; they are ready to be used once they are up.
wait_for_interfaces() {
    local interface deadline=$((SECONDS + ${KEDGE_LINK_SECONDS:-60}))
    for interface in $(interfaces); do
        until [[ -n $(ip -o link show dev "$interface" up 2>/dev/null) ]]; do
            [[ $SECONDS -lt $deadline ]] || fail "$network names $interface, which is not there or not up; is it in the topology's links?"
            sleep 0.02
        done
    done
}

apply_network() {
    local output interface
    if [[ $role == mobile-router ]]; then
        # What is no port to an access router leads into the network behind it.
        for interface in $(interfaces); do
            grep -qw "$interface" /etc/kedge/ports || set_sysctls "net.ipv6.conf.$interface.disable_ipv6=0"
        done
    fi
    output=$(ip -6 -batch "$network" 2>&1) || fail "ip cannot apply $network: $output"
    case $role in
        mobile-node)
            set_sysctls net.ipv6.conf.br0.{disable_ipv6=0,accept_ra=1,autoconf=1,addr_gen_mode=0,optimistic_dad=1,use_optimistic=1,router_solicitation_delay=0}
            ;;
        mobile-router)
            # 2: router advertisements count although it forwards.
            set_sysctls net.ipv6.conf.br0.{disable_ipv6=0,accept_ra=2,autoconf=1,addr_gen_mode=0,router_solicitation_delay=0}
            ;;
    esac
    if is_mobile; then
        ip link set br0 up
    fi
}

start_frr() {
    local staticd_options='-P 0' bgpd_options='-P 0'
    if [[ $role == access-router ]]; then
        # It calls the reflector; nobody needs to call it.
        bgpd_options+=' -p 0'
        if [[ -n ${KEDGE_GRPC_MODULE:-} && -r $KEDGE_GRPC_MODULE ]]; then
            staticd_options+=" -M $KEDGE_GRPC_MODULE:50051"
        else
            say "warning: no gRPC module for FRR at '${KEDGE_GRPC_MODULE:-}': staticd starts without its northbound; run: make setup"
        fi
    fi
    if [[ -n ${KEDGE_BGPD_HOLD:-} ]]; then
        [[ -r ${KEDGE_BGPD_HOLD_MODULE:-} ]] || fail "KEDGE_BGPD_HOLD is set, and there is no module at '${KEDGE_BGPD_HOLD_MODULE:-}'; run: make setup"
        bgpd_options+=" -M $KEDGE_BGPD_HOLD_MODULE:$KEDGE_BGPD_HOLD"
    fi
    cat >/etc/frr/daemons <<-DAEMONS
		bgpd=yes
		ospf6d=yes
		vtysh_enable=yes
		zebra_options="-P 0 -s 90000000 --v6-rr-semantics -K 10"
		staticd_options="$staticd_options"
		staticd_wrap="$(command -v drop-saved-statics)"
		bgpd_options="$bgpd_options"
		ospf6d_options="-P 0"
		watchfrr_options="--min-restart-interval 1 --max-restart-interval 4 --interval 1"
	DAEMONS
    echo 'service integrated-vtysh-config' >/etc/frr/vtysh.conf
    install -d -o frr -g frr /var/log/frr /run/frr
    # The priority that Debian's frr.service gives it.
    nice -n -5 /usr/lib/frr/frrinit.sh start >"$logs/frr.log" 2>&1 || fail "FRR does not start; see $logs/frr.log"
}

# The daemons' user, with the same number in all nodes: the labs' keys are its own (containerlab/make-pki).
make_user() {
    if [[ $(id -u kedge 2>/dev/null) != 8818 ]]; then
        # The machine's own, in this node's copy of /etc.
        userdel --force kedge 2>/dev/null
        useradd --uid 8818 --user-group --no-create-home --shell /usr/sbin/nologin kedge || fail "the user kedge cannot be made"
    fi
    ! runs_frr || usermod --append --groups frrvty kedge
    chown kedge:kedge /var/lib/kedge
    install -d -o kedge -g kedge -m 0750 /run/kedge-speaker
}

# Runs a daemon of Kedge and starts it again when it ends: after 0.1 s, as systemd does, and later and later while it dies at once.
# With the capabilities and the priority that packaging/systemd gives it.
supervise() {
    local name=$1 capabilities=("${@:3}") configuration child status started pause=0.1
    if ! command -v "$name" >/dev/null; then
        say "warning: $name is not on the PATH; the node runs without it"
        return
    fi
    while true; do
        configuration=/etc/kedge/$2
        [[ ! -e $run/$2 ]] || configuration=$run/$2
        started=$SECONDS
        nice -n -10 as-kedge "${capabilities[@]}" -- "$name" --config "$configuration" >>"$logs/$name.log" 2>&1 &
        child=$!
        # shellcheck disable=SC2064
        trap "kill $child 2>/dev/null; exit 0" TERM
        wait "$child"
        status=$?
        say "$name ended with status $status"
        if [[ $status -eq 2 && ! -e $run/ready ]]; then
            printf '%s does not take %s; see %s\n' "$name" "$configuration" "$logs/$name.log" >"$run/failed"
        fi
        [[ $((SECONDS - started)) -lt 2 ]] || pause=0.1
        sleep "$pause"
        pause=$(awk -v p="$pause" 'BEGIN { p *= 2; print (p > 2 ? 2 : p) }')
    done
}

start_daemon() {
    supervise "$@" &
    daemons+=($!)
}

mkdir -p "$run" "$logs" /var/lib/kedge
rm -f "$run"/{started,ready,failed}
exec >>"$logs/start.log" 2>&1 </dev/null
trap stop TERM INT
say "role $role"

set_kernel_up
touch "$run/started"
[[ -r $network ]] || fail "$network is missing; bind it in the topology"
wait_for_interfaces
apply_network
case $role in
    access-router)
        make_user
        # Before FRR, whose northbound port it closes.
        start_daemon kedge-speaker speaker.yaml net_admin net_raw bpf
        ;;
    lm)
        make_user
        start_daemon kedge-lm lm.yaml
        ;;
esac
if runs_frr; then
    start_frr
fi

if wait-ready "$role"; then
    touch "$run/ready"
    say "ready"
else
    fail "the node did not become ready; see $logs/start.log"
fi
while true; do
    sleep infinity &
    wait $!
done
