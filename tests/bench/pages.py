"""The pages of docs/ with published results. Each part's text stands between the lines `<!-- bench: NAME -->` and `<!-- end -->`; what all of them
come to stands in the block `summary`, which is made of the others as they are on the pages, so that a run of some parts leaves it right."""

import dataclasses
import datetime
import pathlib
import re
import shutil

from report import Table, goals_in

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / name for name in ("performance.md", "scale.md")]
IMAGES = DOCS / "images" / "performance"
SUMMARY = "summary"
_BLOCK = re.compile(r"(<!-- bench: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_RAN = re.compile(r"^Ran (\S+) for (\S+) s(?: on (.+))?; load before: (\S+)\.$", re.MULTILINE)


def ran(run):
    """The last line of a part's text."""
    return f"Ran {run['at']} for {run['seconds']} s on {run['machine']}; load before: {run['load_before']:.1f}."


def without_place(names):
    """Those of the parts that no page has a block for."""
    there = {block[2] for page in PAGES for block in _BLOCK.finditer(page.read_text(encoding="utf-8"))}
    return [name for name in names if name not in there]


def publish(name, text, plots, output):
    """Puts a part's text and the plots from the output folder into their places, and the summary anew."""
    _put(name, text)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        shutil.copy(output / f"{plot.name}.svg", IMAGES)
    _put(SUMMARY, summary(PAGES))


def _put(name, text):
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        found = next((block for block in _BLOCK.finditer(content) if block[2] == name), None)
        if found:
            page.write_text(content[: found.end(1)] + text + content[found.start(4) :], encoding="utf-8")
            return
    raise LookupError(f"no page has a place for {name}")


@dataclasses.dataclass
class _Published:
    """A part's block, and under which heading of which page it stands."""

    name: str
    link: str
    goals: list
    at: datetime.datetime | None = None
    seconds: float = 0
    machine: str | None = None

    @classmethod
    def of(cls, page, content, block):
        heading = ([*_HEADING.finditer(content, 0, block.start())] or [None])[-1]
        title = heading[1] if heading else page.stem
        anchor = "#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") if heading else ""
        # The summary stands on the first page.
        link = f"[{title}]({'' if page == PAGES[0] else page.name}{anchor})"
        found = cls(block[2], link, goals_in(block[3]))
        if line := _RAN.search(block[3]):
            found.at, found.seconds, found.machine = datetime.datetime.fromisoformat(line[1]), float(line[2]), line[3]
        return found


def summary(pages):
    """One line for each goal of all parts; when, how long and on what they ran."""
    contents = [(page, page.read_text(encoding="utf-8")) for page in pages]
    parts = [_Published.of(page, content, block) for page, content in contents for block in _BLOCK.finditer(content) if block[2] != SUMMARY]
    goals = [(part, goal) for part in parts for goal in part.goals]
    runs = [part for part in parts if part.at]
    lines = [f"**{sum(goal.met for _, goal in goals)} of {len(goals)} goals met.**"]
    if runs:
        first, last = (_when(which(part.at for part in runs)) + " UTC" for which in (min, max))
        machines = {part.machine for part in runs if part.machine}
        where = {0: "", 1: f", on {min(machines, default='')}"}.get(len(machines), ", on different machines: see under each part")
        lines.append(f"{len(runs)} parts ran for {sum(part.seconds for part in runs) / 60:.0f} minutes in all; the first began at {first}, "
                     f"the last at {last}{where}. Each line below is of its part's last run.")  # fmt: skip
    if missing := [part.name for part in parts if not part.at]:
        lines.append(f"Not measured yet: {', '.join(missing)}.")
    table = Table("", ["goal", "seen", "met", "section", "ran (UTC)"],
                  [[goal.aim, goal.seen, "yes" if goal.met else "**no**", part.link, _when(part.at) if part.at else "-"] for part, goal in goals])  # fmt: skip
    return " ".join(lines) + "\n\n" + table.markdown()


def _when(at):
    return at.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
