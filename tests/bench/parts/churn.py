"""What bgpd's wait before best-path selection is for: the same changes of thousands of routes with a hold of 50, 10 and 0 ms, by our module, on
an access router, a reflector and four other access routers."""

import contextlib
import dataclasses
import json
import random
import select
import statistics
import time

from reflector import Star
from report import Distribution, Part, Plot, Table
from routes import RouteMonitor, RouteWriter, cpu_seconds, now_ms

HOLDS = (50, 10, 0)
ROUTES, CLIENTS = 5000, 5
QUIET_SECONDS, PATIENCE_SECONDS = 0.2, 120
ROLES = ("announcing AR", "reflector", "other AR")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """`changes` of the first `routes` of all, each drawn by lot; `per_second` None: all routes go and come back, `changes` times, as fast as they can."""

    label: str
    routes: int
    changes: int
    per_second: int | None


def patterns(quick):
    return (
        Pattern("all go and come back at once", ROUTES, 1 if quick else 3, None),
        Pattern("1,000 changes/s over all", ROUTES, 500 if quick else 10000, 1000),
        Pattern("1,000 changes/s of 20 routes", 20, 500 if quick else 10000, 1000),
    )


def prefix(number):
    return f"2001:db8:1000:{number:x}::/64"


class Lab:
    """The star, and the routes of its first client, which changes them in its kernel; bgpd redistributes those."""

    def __init__(self, stack, bench):
        self.star = Star(stack, bench.scratch, "churn", CLIENTS, tuned=True, hold=50, redistribute="kernel route-map MOBILE")
        source, self._far = self.star.clients[0], self.star.clients[-1]
        index = json.loads(source.run("ip", "-j", "link", "show", "dev", "eth0"))[0]["ifindex"]
        self._writer = stack.enter_context(contextlib.closing(RouteWriter(source.pid, index)))
        self._monitor = stack.enter_context(contextlib.closing(RouteMonitor(self._far.pid)))
        self._present = set()
        # Prefix -> when it was changed last, and how; without those whose change has come.
        self._pending, self._delays = {}, []
        self.roles = dict(zip(ROLES, (source, self.star.reflector, self._far)))
        self._change(range(ROUTES), True)
        self._settle()

    def _change(self, numbers, add):
        for number in numbers:
            self._writer.write(prefix(number), add)
            self._pending[prefix(number)] = now_ms(), add
            (self._present.add if add else self._present.discard)(number)

    def _hear(self, seconds):
        """What comes within the time; False: nothing."""
        if not select.select([self._monitor], [], [], max(0, seconds))[0]:
            return False
        at = now_ms()
        for changed, is_there in self._monitor.read():
            begin, added = self._pending.get(changed, (at, None))
            if added == is_there:
                del self._pending[changed]
                self._delays.append(at - begin)
        return True

    def _settle(self):
        """Until all clients hold what the source has, and nothing waits anywhere."""
        # Its own neighbours announce nothing to the source.
        others = self.star.clients[1:]

        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            # A question costs bgpd as well: not before the last router's kernel has been quiet for a moment.
            while self._hear(QUIET_SECONDS):
                pass
            self._writer.check()
            same = all(router.prefixes_received() == len(self._present) for router in others)
            if same and not any(router.waits() for router in self.star.routers()):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all routers hold what is announced after {PATIENCE_SECONDS} s")

    def run(self, hold, pattern, seed):
        """Runs the pattern; gives what it has cost."""
        for router in self.star.routers():
            router.hold(hold)
        # All begin alike.
        self._change(sorted(set(range(ROUTES)) - self._present), True)
        self._settle()
        self._pending.clear()
        self._delays = []
        before = self._counters()
        if pattern.per_second is None:
            for _ in range(pattern.changes):
                for add in (False, True):
                    self._change(range(pattern.routes), add)
                    self._settle()
        else:
            self._steadily(pattern, random.Random(seed))
            self._settle()
        used = {key: after - before[key] for key, after in self._counters().items()}
        return used | {"delay": self._delays}

    def _steadily(self, pattern, draw):
        begin = time.monotonic()
        for made in range(pattern.changes):
            number = draw.randrange(pattern.routes)
            self._change([number], number not in self._present)
            while (left := begin + (made + 1) / pattern.per_second - time.monotonic()) > 0:
                self._hear(left)

    def _counters(self):
        """CPU seconds, UPDATE messages sent, runs of best-path selection and changes of best paths, by role."""
        found = {}
        for role, router in self.roles.items():
            found[role, "cpu"] = cpu_seconds(router.host_pid("bgpd"))
            found[role, "updates"] = router.updates_sent()
            found[role, "runs"] = router.best_path_runs()
            found[role, "changes"] = router.table_version()
        return found


def run(bench):
    rounds = bench.samples(3, 1)
    found = {(pattern, hold): [] for pattern in patterns(bench.quick) for hold in HOLDS}
    with contextlib.ExitStack() as stack:
        lab = Lab(stack, bench)
        for number in range(rounds):
            for pattern in patterns(bench.quick):
                for hold in HOLDS[number % 3 :] + HOLDS[: number % 3]:
                    bench.say(f"round {number + 1} of {rounds}: {pattern.label}, hold {hold} ms")
                    found[pattern, hold].append(lab.run(hold, pattern, number))
    return _part(found)


def _median(runs, *key):
    return statistics.median(run[key] for run in runs)


def _part(found):
    rows = []
    for (pattern, hold), runs in found.items():
        delay = Distribution([ms for run in runs for ms in run["delay"]])
        stock = _median(found[pattern, HOLDS[0]], "reflector", "cpu")
        cpu = [_median(runs, role, "cpu") for role in ROLES]
        rows.append([pattern.label, hold, *cpu, f"{cpu[1] / stock:.2f}x", *(round(_median(runs, "reflector", what)) for what in ("updates", "runs", "changes")),
                     delay.median, delay.quantile(0.99)])  # fmt: skip
    labels = list(dict.fromkeys(pattern.label for pattern, _ in found))
    count = len(next(iter(found.values())))
    return Part(
        title="What bgpd's wait is for",
        method=(
            f"One AR with {ROUTES:,} routes, a reflector and {CLIENTS - 1} other ARs, all with kedge_bgpd_hold.so, whose hold is changed between the runs. "
            "The routes are changed in the one AR's kernel and redistributed. Delay: from a route's last change there until the kernel of the last AR has it. "
            f"Medians of {count} runs each, holds in turn."
        ),
        tables=[Table("CPU seconds of each bgpd; the reflector's messages and work; ms of delay",
                      ["changes", "hold", *(f"CPU {role}" for role in ROLES), "reflector, this / 50 ms", "UPDATEs sent", "runs", "best paths changed",
                       "delay median", "delay p99"], rows)],
        plots=[Plot("churn-cpu", "bgpd of the reflector: CPU seconds for the same changes", "", "s",
                    {f"hold {hold} ms": [(label, _median(found[p, h], "reflector", "cpu")) for label in labels
                                         for p, h in found if p.label == label and h == hold] for hold in HOLDS}, kind="bars")],
        data={f"{pattern.label}, {hold} ms": [{" ".join(k) if isinstance(k, tuple) else k: v for k, v in run.items() if k != "delay"} for run in runs]
              for (pattern, hold), runs in found.items()},
    )  # fmt: skip
