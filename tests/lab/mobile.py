"""Mobile nodes of a lab and the numbered flows to them."""

import contextlib
import json

import scenario as scenarios

COMMITTED, SETTLED, DETACHED = "EVENT_TYPE_ATTACH_COMMITTED", "EVENT_TYPE_SETTLED", "EVENT_TYPE_DETACHED"


class Mobile:
    """A mobile node and the prefix that it has from its home access router."""

    def __init__(self, lab, events, name, home, within):
        self.lab, self.events, self.name, self.home = lab, events, name, home
        self.address = lab.mn_address(name, within)
        self.prefix = lab.prefix_of(self.address)
        # What `move` did to the links, of all moves made here.
        self.steps = []

    def at(self):
        return self.lab.binding(self.prefix).get("attached_ar")

    def settled(self):
        return self.lab.binding(self.prefix)["state"] == "BINDING_STATE_SETTLED"

    def go(self, *targets_and_options):
        """The links change, to each target in turn, and nobody waits for what the network does about it. Gives what `move` says of each."""
        done = [json.loads(line) for line in self.lab.output(self.name, "move", *targets_and_options).splitlines()]
        self.steps += [step for one in done for step in one["events"]]
        return done

    def move(self, target):
        """A planned move, until it has settled."""
        done = self.lab.move(self.events, target, self.prefix, mn=self.name)
        self.steps += done["events"]
        return done

    def around(self, begin_ns, end_ns):
        """What happened to the node and its prefix between two times of the monotonic clock: (milliseconds after the first, what)."""
        found = [(step["ns"], f"{step['event']} {step['ar']}") for step in self.steps]
        for event in self.events.all():
            if event.get("prefix") == self.prefix:
                at = scenarios.timestamp_ns(event["at"]) - self.lab.wall_offset_ns
                found.append((at, f"{event['type'].removeprefix('EVENT_TYPE_').lower()} {event['ar']} {event.get('detail', '')}".strip()))
        return [f"{(at - begin_ns) / 1e6:.1f} {what}" for at, what in sorted(found) if begin_ns <= at <= end_ns]

    def wait_attached(self, target, since, seconds=15):
        return self.events.wait(
            f"{self.prefix} attached at {target}",
            lambda e: e["type"] == COMMITTED and e["ar"] == target and e.get("prefix") == self.prefix, seconds, since,
        )  # fmt: skip

    def wait_settled(self, target):
        scenarios.wait_until(f"{self.name} settled at {target}", lambda: self.at() == target and self.settled(), seconds=30)


def another_mn(lab, node, mac):
    """Gives a mobile node another MAC address, which makes it another MN, without a link and with no address. Returns the address."""
    for port in lab.output(node, "sed", "s/#.*//", "/etc/kedge/ports").split()[1::2]:
        lab.run(node, "ip", "link", "set", port, "down")
    for step in (["down"], ["address", mac], ["up"]):
        lab.run(node, "ip", "link", "set", "br0", *step)
    return mac


@contextlib.contextmanager
def flow_to(lab, folder, mobile, port=9000, **options):
    """To the mobile node's first address, unless `mn_address` is another."""
    options = {"mn_address": mobile.address, **options}
    flow = scenarios.Flow(lab, folder / f"{mobile.name}-{port}", mn=mobile.name, port=port, **options)
    try:
        yield flow
    finally:
        flow.abort()


def say(capsys, request, text):
    """A line, or more, among pytest's own."""
    with capsys.disabled():
        print(f"\n{request.node.name}: {text}")


def finish(capsys, request, *mobiles, **flows):
    """Stops the flows, prints a line, and returns packets lost in both directions of each. `mobiles`: whose moves explain the losses."""
    lost = {}
    texts = []
    for name, flow in flows.items():
        flow.stop()
        report = flow.report()
        down, up = report["a_to_b"], report["b_to_a"]
        assert down["sent"] > 50 and up["sent"] > 50
        lost[name] = down["lost"] + up["lost"]
        pause = max(down["longest_send_gap_ms"], up["longest_send_gap_ms"])
        texts.append(
            f"{name} lost {down['lost']} of {down['sent']} and {up['lost']} of {up['sent']}, longest gap "
            f"{max(down['longest_gap_ms'], up['longest_gap_ms']):.1f} ms (sender's own {pause:.1f} ms)"
        )
        for loss in [*down["losses"], *up["losses"]]:
            # Half a second before the first lost packet until shortly after the last.
            begin = report["base_ns"] + int(loss["sent_at_ms"] * 1e6) - 500_000_000
            texts.append(
                f"\n  {loss['count']} lost after 500.0 ms of: "
                + "; ".join(f"{mobile.name}: {', '.join(mobile.around(begin, begin + 700_000_000))}" for mobile in mobiles)
            )
    say(capsys, request, "; ".join(texts))
    return lost
