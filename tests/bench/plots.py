"""Plots of the benchmark's report, drawn by gnuplot as SVG."""

import math
import pathlib
import subprocess

# Distinguishable without colour vision too (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# More points of a curve than the picture has pixels make it only heavier.
_MOST_POINTS = 400
_STYLES = {"lines": "linespoints", "steps": "steps", "bars": "histograms"}


def _quoted(text):
    return '"' + str(text).replace("\\", "\\\\").replace('"', "'") + '"'


def _usable(plot, x, y):
    """Whether the point can stand on the plot's axes."""
    return all(not log or (isinstance(value, (int, float)) and value > 0 and math.isfinite(value)) for log, value in ((plot.log_x, x), (plot.log_y, y)))


def _thinned(points):
    """With the first and the last."""
    points = list(points)
    if len(points) <= _MOST_POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def _script(plot, path):
    lines = [
        "set terminal svg size 800,420 font 'sans-serif,13' background '#ffffff'",
        f"set output {_quoted(path)}",
        f"set title {_quoted(plot.title)} noenhanced",
        f"set xlabel {_quoted(plot.x_label)} noenhanced",
        f"set ylabel {_quoted(plot.y_label)} noenhanced",
        "set grid",
        "set key outside right top noenhanced",
    ]
    lines += [f"set logscale {axis}" for axis, log in (("x", plot.log_x), ("y", plot.log_y)) if log]
    if plot.kind == "bars":
        lines += ["set style fill solid 0.8", "set style histogram clustered gap 1", "set yrange [0:*]" if not plot.log_y else "set yrange [*:*]"]
        words = [x for x, _ in next(iter(plot.series.values()))]
        lines.append("set xtics (" + ", ".join(f"{_quoted(word)} {i}" for i, word in enumerate(words)) + ") noenhanced")
    drawn = []
    for index, (label, points) in enumerate(plot.series.items()):
        block = f"$data{index}"
        lines.append(f"{block} << END")
        lines += [str(y) if plot.kind == "bars" else f"{x} {y}" for x, y in _thinned(points) if plot.kind == "bars" or _usable(plot, x, y)]
        lines.append("END")
        colour = _COLOURS[index % len(_COLOURS)]
        drawn.append(f"{block} using {'1' if plot.kind == 'bars' else '1:2'} with {_STYLES[plot.kind]} lc rgb '{colour}' title {_quoted(label)}")
    lines.append("plot " + ", \\\n  ".join(drawn))
    return "\n".join(lines) + "\n"


def draw(plot, folder):
    """Writes `<folder>/<plot's name>.svg`."""
    path = pathlib.Path(folder) / f"{plot.name}.svg"
    subprocess.run(["gnuplot"], input=_script(plot, path), text=True, check=True, capture_output=True)
    return path
