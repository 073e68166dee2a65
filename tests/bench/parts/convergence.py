"""How long a single /64 takes from the access router that announces it, over a route reflector, into another access router's kernel: with FRR
as it comes, with zebra tuned, and with bgpd's wait taken out by our module as well."""

import contextlib
import select
import time

from reflector import GRPC_MODULE, Star
from report import SPREAD, Distribution, Goal, Part, Plot, Table
from routes import RouteMonitor, now_ms

from frr_node import Driver

STOCK, TUNED, MODULE = "stock", "tuned", "tuned, with our module"
PREFIX = "2001:db8:1000:1::/64"
# What a packet meets: where the change is made, in the middle, at the far end.
PLACES = ("own AR", "reflector", "remote AR")
ADD, WITHDRAW = "announced", "withdrawn"
PATIENCE_SECONDS = 20


class Variant:
    def __init__(self, stack, bench, name, label, **options):
        self._star = Star(stack, bench.scratch, name, 2, **options)
        own, remote = self._star.clients
        own.start("staticd", "-P", "0", "-M", f"{GRPC_MODULE.resolve()}:50051")
        driver = bench.build / "tests" / "component" / "frr" / "anchoring_plane_driver"
        self._driver = stack.enter_context(contextlib.closing(Driver(own, driver, bench.scratch / f"{name}.log")))
        self._driver.tell("replace")
        self._driver.expect("state synced")
        self._monitors = [stack.enter_context(contextlib.closing(RouteMonitor(router.pid))) for router in (own, self._star.reflector, remote)]
        self.label = label
        self.times = {(kind, place): [] for kind in (ADD, WITHDRAW) for place in PLACES}

    def sample(self):
        """The speaker's own way into FRR, both ways, each until the last kernel has it."""
        for kind, level in ((ADD, 1), (WITHDRAW, 0)):
            begin = now_ms()
            self._driver.tell(f"set {PREFIX} {level}")
            for place, at in zip(PLACES, self._wait(kind == ADD, begin)):
                self.times[kind, place].append(at - begin)
            self._driver.expect(f"committed {PREFIX} {level}", after=begin / 1e3)

    def _wait(self, added, begin):
        seen = [None] * len(self._monitors)
        while None in seen:
            ready, _, _ = select.select(self._monitors, [], [], PATIENCE_SECONDS)
            at = now_ms()
            if not ready:
                raise RuntimeError(f"{self.label}: {PREFIX} did not come everywhere within {PATIENCE_SECONDS} s: {seen} after {begin}")
            for monitor in ready:
                index = self._monitors.index(monitor)
                # The last one counts: a replaced route may be taken away first.
                for prefix, is_there in monitor.read():
                    if prefix == PREFIX and is_there == added and seen[index] is None:
                        seen[index] = at
        return seen


def run(bench):
    samples = bench.samples(120, 3)
    with contextlib.ExitStack() as stack:
        variants = [
            Variant(stack, bench, "stock", STOCK, tuned=False),
            Variant(stack, bench, "tuned", TUNED, tuned=True),
            Variant(stack, bench, "module", MODULE, tuned=True, hold=0),
        ]
        for number in range(samples):
            if number % 30 == 0:
                bench.say(f"sample {number} of {samples}")
            for variant in variants:
                variant.sample()
                # For what bgpd and zebra do afterwards.
                time.sleep(0.1)
    return _part({variant.label: {key: Distribution(times) for key, times in variant.times.items()} for variant in variants})


def _part(found):
    tables = [
        Table(f"A /64 is {kind}: ms from the speaker's request until the kernel of each has it",
              ["FRR", "where", "samples", *SPREAD, "stock / this"],
              [[label, place, len(times[kind, place].samples), *times[kind, place].cells(),
                f"{found[STOCK][kind, place].median / times[kind, place].median:.1f}x"]
               for label, times in found.items() for place in PLACES])
        for kind in (ADD, WITHDRAW)
    ]  # fmt: skip
    ours = found[MODULE][ADD, "remote AR"].median
    return Part(
        title="Convergence",
        method=(
            "One AR, a route reflector, another AR. The speaker's own code commits a /64 to staticd by gRPC at the one, and takes it away again; "
            "the kernels' own notices say when each had it. The three variants run side by side and take turns. "
            "stock: FRR as Debian starts it. tuned: `zebra work-queue 0` and `--v6-rr-semantics`. Module: kedge_bgpd_hold.so with a hold of 0 ms."
        ),
        tables=tables,
        goals=[Goal("under 10 ms (median) from AR to AR with our module", f"{ours:.1f} ms", ours < 10,
                    "bgpd and zebra of three routers on the machine's cores")],
        plots=[Plot.cumulative("convergence", "A /64 announced, until it is in the remote AR's kernel", "ms",
                               {label: times[ADD, "remote AR"] for label, times in found.items()})],
        limits="stock and tuned: bgpd's wait of 50 ms, once at each of the three routers, and for stock zebra's of 10 ms.",
        data={label: {f"{kind}, {place}": distribution.samples for (kind, place), distribution in times.items()} for label, times in found.items()},
    )  # fmt: skip
