"""The page docs/performance.md and its charts, from one run."""

from collections.abc import Iterator
from pathlib import Path

from scripts.benching.chart import Line, chart
from scripts.benching.figures import WG_QUICK, Figure, Run
from scripts.benching.programs import LIMIT

FRAME = Path(__file__).resolve().parents[1] / "performance.md.in"
CHARTS = {
    "performance-healthy.svg": ("healthy", "Exec to healthy", "seconds"),
    "performance-idle.svg": ("idle", "Idle and connected", "processor, ms per minute"),
}
"""By file: the figure, the title, what the y axis shows."""
MS = 1000
HOLES = "holes"


def write(run: Run, directory: Path) -> None:
    """Write the page and the charts into `directory`."""
    (directory / "performance.md").write_text(page(run), encoding="utf-8")
    for name, text in charts(run).items():
        (directory / name).write_text(text, encoding="utf-8")


def page(run: Run) -> str:
    """Return the text of the page."""
    text = FRAME.read_text("utf-8")
    about = dict(run.about)
    before, *_, after = about["load"]
    parts = {
        "{about}": "{when}, commit {commit}, Linux {kernel}, {processors} processors,"
        " Python {python}, firewall `{firewall}`, runs: {runs}, load".format(**about)
        + f" {before} before and {after} after."
        + (" The gateway's own resolver runs." if about.get("resolver") else ""),
        "{figures}": markdown(run, holes=False),
        "{holes}": markdown(run, holes=True),
        "{limit}": f"{LIMIT:g}",
        "{baseline}": run.baseline or "not measured",
    }
    for mark, value in parts.items():
        text = text.replace(mark, value)
    return text


def markdown(run: Run, *, holes: bool) -> str:
    """Return the table of the figures with holes, or of those without."""
    chosen = [figure for figure in run.figures if bool(figure.holes) == holes]
    heading, *rows = Run(run.about, run.programs, run.baseline, chosen).rows()
    rule = ["---"] + ["---:"] * (len(heading) - 2) + ["---"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, rule, *rows])


def charts(run: Run) -> dict[str, str]:
    """Return the text of each chart by its file's name."""
    made = {}
    for name, (figure, title, unit) in CHARTS.items():
        lines = list(_lines(run, figure))
        if lines:
            labels = {"x": "holes in the configuration", "y": unit}
            made[name] = chart(f"{title}, by the number of holes", labels, lines, LIMIT)
    return made


def _lines(run: Run, name: str) -> Iterator[Line]:
    """Yield a line for each program and kind of hole: the program's colour, the kind's dashes."""
    kinds: dict[str, list[tuple[float, Figure]]] = {}
    for figure in run.figures:
        number, _, kind = figure.holes.partition(" ")
        if figure.name == name and number.isdecimal():
            kinds.setdefault(kind, []).append((float(number), figure))
    for color, program in enumerate(run.programs):
        for dash, (kind, sized) in enumerate(kinds.items()):
            if program == WG_QUICK and dash:
                continue  # it has no holes: one line for comparison
            points = [
                (number, _value(figure, program))
                for number, figure in sorted(sized, key=lambda each: each[0])
                if figure.values.get(program)
            ]
            if points:
                label = program if program == WG_QUICK else f"{program}, {kind}"
                yield Line(label, color, dash, points)


def _value(figure: Figure, program: str) -> float | None:
    middle = figure.median(program)
    return middle / MS if middle is not None and figure.name == "healthy" else middle
