"""What access routers and the core hold, compared with what the bindings say that they should hold: the kernel's tables, the sources that the
access links let in, what FRR is given to announce, and the core's BGP table, each of them exactly; and that the kernel has learnt no neighbour
on an access link."""

import ipaddress
import json
import time

MOBILE_TABLE, ENCAPSULATION_TABLE, UPLINK_TABLE, REFUSAL_TABLE = 8818, 8819, 8820, 8821
ANCHOR_PROTOCOL = "89"
KERNEL_METRIC_BASE = 881800
LOWEST_LOCAL_PREFERENCE = 101
REST_STATES = {"BINDING_STATE_SETTLED", "BINDING_STATE_DETACHED"}


def _routes(lab, ar, table):
    """Also routes that are not Kedge's: nobody else may put any into these tables."""
    output = lab.run(ar, "ip", "-6", "-j", "route", "show", "table", table, check=False).stdout
    return json.loads(output or "[]")


def _mobile(route):
    if route.get("type") in ("unreachable", "prohibit"):
        return route["type"]
    return f"via {route.get('gateway', '-')} dev {route['dev']}"


def _key(route):
    """Of a reverse tunnel, ::/0 from P, it is P that matters."""
    if "from" not in route or route["from"] == route["dst"]:
        return route["dst"]
    return f"from {route['from']}" if route["dst"] == "default" else f"{route['dst']} from {route['from']}"


def _held_by_kernel(lab, ar):
    found = {"mobile": {}, "encapsulation": {}, "uplink": {}, "refusal": {}}
    for table in (MOBILE_TABLE, ENCAPSULATION_TABLE, UPLINK_TABLE, REFUSAL_TABLE):
        # Others would be taken up by zebra.
        assert all(route["protocol"] == "kernel" for route in _routes(lab, ar, table)), f"{ar}, table {table}"
    for route in _routes(lab, ar, MOBILE_TABLE):
        kind = _mobile(route)
        # The link-local behind the pair is the speaker's own business.
        found["mobile"][route["dst"]] = "redirect" if kind.endswith("dev kx0") else kind
    for route in _routes(lab, ar, ENCAPSULATION_TABLE):
        found["encapsulation"][_key(route)] = (route.get("segs") or ["-"])[0]
    for route in _routes(lab, ar, UPLINK_TABLE):
        found["uplink"][_key(route)] = route.get("type", f"dev {route['dev']}")
    for route in _routes(lab, ar, REFUSAL_TABLE):
        found["refusal"][route["dst"]] = _mobile(route)
    return found


def permitted_sources(lab, ar):
    """(prefix, interface, link-layer address) of all that may come in by an access interface; a link-local address is one of 128 bits. None when
    there is no filter."""
    sets = _access_filter(lab, ar)
    if sets is None:
        return None
    found = set()
    for name, elements in sets.items():
        kind, _, length = name.partition("_")
        if kind == "sources" and length:
            found |= {(f"{e['concat'][2]}/{length}", *e["concat"][:2]) for e in elements}
    return found


def _access_filter(lab, ar):
    """Set -> elements."""
    answer = lab.run(ar, "nft", "-j", "list", "table", "inet", "kedge_access", check=False)
    if answer.returncode != 0:
        return None
    return {item["set"]["name"]: item["set"].get("elem", []) for item in json.loads(answer.stdout)["nftables"] if "set" in item}


def passing_neighbours(lab, ar):
    """(interface, address) of what the kernel has learnt of the nodes on its access links: it takes up room that the neighbours of the other links
    need, of which there is gc_thresh3. Nothing, where the access filter is."""
    found = set()
    for interface in (_access_filter(lab, ar) or {}).get("interfaces", []):
        neighbours = json.loads(lab.run(ar, "ip", "-6", "-j", "neigh", "show", "dev", interface, "nud", "all", check=False).stdout or "[]")
        found |= {(interface, n["dst"]) for n in neighbours if not {"PERMANENT", "NOARP"}.intersection(n.get("state", []))}
    return found


def _held_by_frr(lab, ar):
    """Prefix -> level of what is there for FRR to announce, by either injector: the tag of every static route that has one, and all routes of the
    speaker's in the table main. None when staticd does not run."""
    answer = lab.run(ar, "vtysh", "-d", "staticd", "-c", "show running-config", check=False)
    if answer.returncode != 0:
        return None
    words = (line.split() for line in answer.stdout.splitlines() if line.startswith("ipv6 route ") and " tag " in line)
    found = {line[2]: int(line[line.index("tag") + 1]) for line in words}
    for route in _routes(lab, ar, "main"):
        if str(route.get("protocol")) == ANCHOR_PROTOCOL:
            found.setdefault(route["dst"], []).append(route["metric"] - KERNEL_METRIC_BASE)
    return {prefix: level[0] if isinstance(level, list) and len(level) == 1 else level for prefix, level in found.items()}


def _held_by_bgp(lab, node, pools):
    """Prefix -> sorted (next hop, local preference) of all valid paths, of what lies in the pools; of a pool that is not announced as such, those
    of the aggregate that covers it."""
    table = json.loads(lab.output(node, "vtysh", "-c", "show bgp ipv6 unicast json") or "{}")
    announced = {
        ipaddress.ip_network(prefix): sorted((path["nexthops"][0]["ip"], path.get("locPrf")) for path in paths)
        for prefix, paths in table.get("routes", {}).items()
    }
    found = {str(prefix): paths for prefix, paths in announced.items() if any(prefix.subnet_of(pool) for pool in pools)}
    for pool in pools:
        covering = [prefix for prefix in announced if pool.subnet_of(prefix)]
        if covering:
            found.setdefault(str(pool), announced[max(covering, key=lambda prefix: prefix.prefixlen)])
    return found


def _refuse(held, prefix, link):
    held["mobile"][prefix] = "prohibit"
    held["refusal"][prefix] = f"via {link['link_local']} dev {link['interface']}"
    for half in ("::/1", "8000::/1"):
        held["uplink"][f"{half} from {prefix}"] = "prohibit"


def _sources(prefix, link):
    """The node's prefix, and the link-local address that it is known by."""
    return {(source, link["interface"], link["link_layer_address"]) for source in (prefix, f"{link['link_local']}/128")}


def _expected(bindings, nodes):
    kernel = {name: {"mobile": {}, "encapsulation": {}, "uplink": {}, "refusal": {}} for name in nodes}
    sources = {name: set() for name in nodes}
    present = {binding["mn_id"]: binding for binding in bindings if binding["attached_ar"]}
    frr = {name: {} for name in nodes}
    bgp = {pool: [(info["locator"], 100)] for info in nodes.values() for pool in info["pools"]}
    holders = {}
    for binding in bindings:
        prefix, home, attached = binding["prefix"], binding["home_ar"], binding["attached_ar"]
        if not attached:
            kernel[home]["mobile"][prefix] = "prohibit" if binding.get("released") else "unreachable"
            holders[prefix] = {home}
            here = present.get(binding["mn_id"])
            if binding.get("released") and here and here["attached_ar"] != home:
                # RFC 8818, 4.1: an address of a prefix that has ended is not valid where its node is.
                _refuse(kernel[here["attached_ar"]], prefix, here["attachment"])
                sources[here["attached_ar"]] |= _sources(prefix, here["attachment"])
                holders[prefix].add(here["attached_ar"])
            continue
        link = binding["attachment"]
        kernel[attached]["mobile"][prefix] = f"via {link['link_local']} dev {link['interface']}"
        kernel[attached]["uplink"][prefix] = "blackhole"
        sources[attached] |= _sources(prefix, link)
        holders[prefix] = {home, attached}
        if home != attached:
            # RFC 8818, 4.2: the home AR goes on forwarding to the new location while the prefix is away.
            kernel[home]["mobile"][prefix] = "redirect"
            kernel[home]["encapsulation"][prefix] = nodes[attached]["deliver_sid"]
            if binding["mode"] == "MODE_REDIRECT":
                if not binding.get("direct_uplink"):
                    kernel[attached]["encapsulation"][f"from {prefix}"] = nodes[home]["uplink_sid"]
                    kernel[attached]["uplink"][f"from {prefix}"] = "dev kx0"
                continue
            frr[attached][prefix] = 1
            bgp[prefix] = [(nodes[attached]["locator"], LOWEST_LOCAL_PREFERENCE)]
    neighbours = {name: set() for name in nodes}
    return {"kernel": kernel, "sources": sources, "neighbours": neighbours, "frr": frr, "bgp": bgp, "holders": holders}


def _flat(value, path=()):
    if isinstance(value, dict):
        return {key: leaf for name, inner in value.items() for key, leaf in _flat(inner, (*path, name)).items()}
    return {path: value}


def differences(lab, core="core", old_links_stay=False):
    """One line for each thing that is not as the bindings say; none when all is at rest and exact. While the link to an old access router stays
    up, its node may send there, too, for some time."""
    answers = [lab.run("lm", "kedgectl", what, "-o", "json", check=False) for what in ("nodes", "bindings")]
    if any(answer.returncode != 0 for answer in answers):
        return ["the LM does not answer: " + "; ".join(answer.stderr.strip() for answer in answers)]
    nodes, bindings = json.loads(answers[0].stdout)["nodes"], json.loads(answers[1].stdout)["bindings"]
    found = []
    for node in nodes:
        name, health = node["info"]["name"], node["health"]
        if not node["connected"]:
            found.append(f"{name}: not connected to the LM")
        found += [f"{name}: {part}: {health[part]}" for part in ("kernel", "frr", "access") if health[part] != "synced"]
    found += [f"{b['prefix']}: is {b['state']}" for b in bindings if b["state"] not in REST_STATES]
    if found:
        return found

    infos = {node["info"]["name"]: node["info"] for node in nodes}
    desired = _expected(bindings, infos)
    known = {b.get("attachment", {}).get("link_local") for b in bindings}
    actual = {
        "kernel": {name: _held_by_kernel(lab, name) for name in infos},
        "sources": {name: permitted_sources(lab, name) for name in infos},
        # The one that is let in goes up to 0.1 s after its permanent neighbour.
        "neighbours": {name: {n for n in passing_neighbours(lab, name) if n[1] not in known} for name in infos},
        "frr": {name: _held_by_frr(lab, name) for name in infos},
        "bgp": _held_by_bgp(lab, core, [ipaddress.ip_network(pool) for info in infos.values() for pool in info["pools"]]),
        "holders": {b["prefix"]: {holder["ar"] for holder in b["holders"]} for b in bindings},
    }
    if old_links_stay:
        nodes_of = {b["prefix"]: b["mn_id"] for b in bindings}
        for name, sources in actual["sources"].items():
            extra = (sources or set()) - desired["sources"][name]
            actual["sources"][name] = sources and sources - {one for one in extra if nodes_of.get(one[0]) == one[2]}
    wanted, held = _flat(desired), _flat(actual)
    return [
        f"{' '.join(map(str, key))}: {held.get(key, 'nothing')} instead of {wanted.get(key, 'nothing')}"
        for key in sorted(wanted.keys() | held.keys(), key=str)
        if wanted.get(key) != held.get(key)
    ]


def audit(lab, seconds=30, core="core"):
    """Asserts that, within the bound, all is at rest and kernel, FRR and BGP hold exactly what the bindings say."""
    deadline = time.monotonic() + seconds
    while found := differences(lab, core):
        assert time.monotonic() < deadline, f"not as the bindings say after {seconds} s:\n" + "\n".join(found)
        time.sleep(0.1)
