"""What a part of the benchmark hands back, and how it is written: distributions, tables, goals and plots, as JSON and as Markdown. What a part's
text on a page says of its goals is read here, too."""

import dataclasses
import math
import re
import statistics


@dataclasses.dataclass
class Distribution:
    """Samples of one quantity; their unit stands where they are shown."""

    samples: list

    def quantile(self, q):
        """The smallest sample that at least this share of all does not exceed, 0 < q <= 1."""
        ordered = sorted(self.samples)
        return ordered[max(0, math.ceil(q * len(ordered)) - 1)]

    @property
    def median(self):
        return statistics.median(self.samples)

    def summary(self):
        return {
            "count": len(self.samples), "min": min(self.samples), "median": self.median,
            "p90": self.quantile(0.9), "p99": self.quantile(0.99), "max": max(self.samples),
        }  # fmt: skip

    def cells(self):
        """Minimum, median, 99th percentile, maximum: the columns SPREAD."""
        return [min(self.samples), self.median, self.quantile(0.99), max(self.samples)]


SPREAD = ("min", "median", "p99", "max")


def ratio_spread(theirs, ours):
    """How many times one's figure is the other's, as text: `0.97x (0.91-1.10)`. Both are lists of rounds, a figure or a list of samples each, where
    round i of one and round i of the other took turns. First the ratio of the medians of all samples, then the least and the most of the rounds."""
    theirs, ours = ([one if isinstance(one, list) else [one] for one in rounds] for rounds in (theirs, ours))
    pairs = [(statistics.median(a), statistics.median(b)) for a, b in zip(theirs, ours) if a and b]
    ratios = [a / b for a, b in pairs if b]
    whole = [statistics.median(sum(rounds, [])) if any(rounds) else 0 for rounds in (theirs, ours)]
    if not ratios or not whole[1]:
        return "-"
    spread = f" ({_times(min(ratios))}-{_times(max(ratios))})" if len(ratios) > 1 else ""
    return f"{_times(whole[0] / whole[1])}x{spread}"


def _times(value):
    """Two places behind the point, or two or three significant digits where these would be too few or too many."""
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else number(value)


def extent(values):
    """The smallest and the largest, as text: `12-15`; one alone when they look the same."""
    least, most = number(min(values)), number(max(values))
    return least if least == most else f"{least}-{most}"


def number(value):
    """A figure as people read it: three significant digits, thousands apart."""
    if value is None:
        return "-"
    if isinstance(value, (str, bool)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


@dataclasses.dataclass
class Table:
    title: str
    columns: list
    rows: list
    note: str = ""

    def markdown(self):
        lines = [f"**{self.title}**", ""] if self.title else []
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("| --- |" + " ---: |" * (len(self.columns) - 1))
        lines += ["| " + " | ".join(number(cell) for cell in row) + " |" for row in self.rows]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def text(self):
        rows = [list(self.columns)] + [[number(cell) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [self.title]
        for index, row in enumerate(rows):
            lines.append("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))
            if index == 0:
                lines.append("  ".join("-" * width for width in widths))
        if self.note:
            lines.append(self.note)
        return "\n".join(lines) + "\n"


@dataclasses.dataclass
class Goal:
    """What was aimed at, what was seen; for one that was missed, what limits it."""

    aim: str
    seen: str
    met: bool
    limit: str = ""

    def __post_init__(self):
        if not self.met and not self.limit:
            raise ValueError(f"goal {self.aim!r} was missed: say what limits it")


GOAL_COLUMNS = ["goal", "seen", "met", "what limits it"]
_GOAL_LINE = re.compile(r"^\| (.+) \| (.+) \| (yes|no) \| (.*) \|$", re.MULTILINE)


def goals_in(text):
    """The goals that a part's Markdown tells of."""
    _, _, below = text.partition("**Goals**\n")
    return [Goal(aim, seen, met == "yes", limit) for aim, seen, met, limit in _GOAL_LINE.findall(below)]


@dataclasses.dataclass
class Plot:
    """`series` maps a label to (x, y) pairs. Kinds: `lines`; `steps`, for cumulative distributions; `bars`, with words as x."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: dict
    kind: str = "lines"
    log_x: bool = False
    log_y: bool = False

    @classmethod
    def cumulative(cls, name, title, x_label, distributions, log_x=True):
        """How large a share of the samples was not above x; one line for each label -> Distribution."""
        series = {}
        for label, distribution in distributions.items():
            ordered = sorted(distribution.samples)
            series[label] = [(x, 100 * (i + 1) / len(ordered)) for i, x in enumerate(ordered)]
        return cls(name, title, x_label, "share of all (%)", series, kind="steps", log_x=log_x)


@dataclasses.dataclass
class Part:
    """One part's results. `method`: what was done, in a sentence or two; `limits`: what held the figures where they are."""

    title: str
    method: str
    tables: list
    goals: list = dataclasses.field(default_factory=list)
    plots: list = dataclasses.field(default_factory=list)
    limits: str = ""
    data: dict = dataclasses.field(default_factory=dict)

    def markdown(self, images):
        """`images`: where the plots stand, as seen from the page."""
        sections = [self.method, ""]
        for table in self.tables:
            sections += [table.markdown()]
        for plot in self.plots:
            sections += [f"![{plot.title}]({images}/{plot.name}.svg)", ""]
        if self.goals:
            sections += [Table("Goals", GOAL_COLUMNS, [[g.aim, g.seen, "yes" if g.met else "no", g.limit] for g in self.goals]).markdown()]
        if self.limits:
            sections += [f"What limits it: {self.limits}", ""]
        return "\n".join(sections)

    def json(self):
        return dataclasses.asdict(self)
