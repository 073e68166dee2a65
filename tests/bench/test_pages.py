"""What the pages' summary is made of."""

import pages
import pytest
import report

GOALS = [report.Goal("fast", "1 ms", True, "the disk"), report.Goal("small", "2 GiB", False, "one text a record")]


def _part(goals):
    table = report.Table("Goals of nobody", ["a", "b", "c", "d"], [["x", "y", "yes", "z"]])
    return report.Part("Title", "Method.", [table], goals)


def test_goals_are_read_as_they_were_written():
    assert report.goals_in(_part(GOALS).markdown("images")) == GOALS
    assert not report.goals_in(_part([]).markdown("images"))


def _block(name, goals, at, seconds, machine="2 cores"):
    run = {"at": f"2026-11-{at}:00+00:00", "seconds": seconds, "machine": machine, "load_before": 0.25}
    return f"<!-- bench: {name} -->\n{_part(goals).markdown('images')}\n{pages.ran(run)}\n<!-- end -->\n"


@pytest.fixture(name="published")
def published_fixture(tmp_path, monkeypatch):
    (tmp_path / "performance.md").write_text(
        "# Performance\n\n<!-- bench: summary -->\n<!-- end -->\n\nText.\n\n## The LM\n\n" + _block("lm", GOALS, "26T20:02", 300)
        + "## Idle\n\n<!-- bench: idle -->\n<!-- end -->\n", encoding="utf-8")  # fmt: skip
    (tmp_path / "scale.md").write_text("## A large network, simulated\n\n" + _block("scale", GOALS[:1], "27T08:00", 60), encoding="utf-8")
    monkeypatch.setattr(pages, "PAGES", [tmp_path / "performance.md", tmp_path / "scale.md"])
    monkeypatch.setattr(pages, "IMAGES", tmp_path / "images")
    return tmp_path


@pytest.mark.usefixtures("published")
def test_summary_has_all_goals_with_the_date_of_each():
    text = pages.summary(pages.PAGES)
    assert text.startswith("**2 of 3 goals met.** 2 parts ran for 6 minutes in all; the first began at 2026-11-26 20:02 UTC, the last at 2026-11-27 08:00 UTC, "
                           "on 2 cores.")  # fmt: skip
    assert "Not measured yet: idle." in text
    assert "| small | 2 GiB | **no** | [The LM](#the-lm) | 2026-11-26 20:02 |" in text
    assert "| fast | 1 ms | yes | [A large network, simulated](scale.md#a-large-network-simulated) | 2026-11-27 08:00 |" in text


def test_a_part_alone_changes_its_own_lines_of_the_summary(published):
    block = _block("lm", GOALS[:1], "28T10:00", 120, "4 cores").splitlines(keepends=True)[1:-1]
    pages.publish("lm", "".join(block), [], published)
    page = (published / "performance.md").read_text(encoding="utf-8")
    assert "**2 of 2 goals met.**" in page and "on different machines" in page
    assert page.index("goals met") < page.index("Text.") < page.index("Ran 2026-11-28T10:00:00+00:00 for 120 s on 4 cores")
    assert page.count("2026-11-28 10:00 |") == 1 and page.count("2026-11-27 08:00 |") == 1
    # Once more changes nothing.
    pages.publish("lm", "".join(block), [], published)
    assert page == (published / "performance.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("published")
def test_parts_without_a_place_are_known_before_anything_runs():
    assert pages.without_place(["lm", "storm", "scale"]) == ["storm"]


def test_published_pages_can_be_read():
    text = pages.summary(pages.PAGES)
    assert "goals met" in text and "| [Handover](#handover) |" in text
