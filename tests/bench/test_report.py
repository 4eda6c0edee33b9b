"""The command and its output: tables, plots, and a page that needs no network."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from satlight.bench.figures import Plot, bench_plots, board_plots
from satlight.bench.report import html_report, svg, write_report
from satlight.cli import main
from satlight.evaluation.plots import INK


class Page(HTMLParser):
    """Collect open tags, references and text of a page; fail on tags that do not match."""

    VOID = ("meta", "br", "img", "link", "hr", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.references, self.ids, self.text = [], [], [], ""
        self.tables_inside = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data")]
        if tag == "table":
            self.tables_inside.append(self.open[-1])
        if tag not in self.VOID:
            self.open.append((tag, attributes.get("class")))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def board(compute, bench_file):
    (board,) = compute(
        bench_file(["toys.Toy", "toys.Crash"], data_release={"founders": 2, "best": 1, "probes": 8}, seeds=[0])
    )
    return board


def test_the_page_needs_nothing_else_and_holds_everything(board):
    plots = board_plots(board)
    text = html_report("a <bench>", [board], {"toy/all": plots}, "methods: [a & b]")
    page = Page(text)
    inside = [reference for reference in page.references if not reference.startswith("data:image/png")]
    assert all(reference.startswith("#") for reference in inside)
    assert "<script" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert set(page.tables_inside) == {("div", "scroll")}  # each scrolls in its own box
    assert len(page.ids) == len(set(page.ids))
    assert {r.removeprefix("#") for r in inside} <= set(page.ids)
    for entry in board.entries:
        assert entry.name in page.text
    for plot in plots:
        assert plot.caption in page.text
    assert "Routing bench: a <bench>" in page.text
    assert "failed: Crash, seed 0: no such luck" in page.text
    assert "methods: [a & b]" in page.text
    assert "width=device-width" in text
    assert "prefers-color-scheme:dark" in text


def test_a_leaderboard_has_its_plots(board):
    names = [plot.name for plot in board_plots(board)]
    assert names == [f"toy-all-{n}" for n in ("datasets", "reliability", "choices", "quality-cost", "release")]


def test_several_zoo_sizes_make_a_plot(compute, bench_file, tmp_path):
    (tmp_path / "two.yaml").write_text("name: two\ncandidates: ['*-0', '*-3']\n")
    boards = compute(bench_file(["toys.Toy"], seeds=[0], data_settings=["all", str(tmp_path / "two.yaml")]))
    (plot,) = bench_plots(boards)
    lines = {line.get_label(): line for line in plot.figure.axes[0].lines}
    assert lines["Toy"].get_ydata().tolist() == [50.0, 100.0]  # with two candidates, and with four
    assert lines["oracle"].get_ydata().tolist() == [50.0, 100.0]


def test_svg_takes_its_ink_from_the_page():
    figures = []
    for name in ("one", "two"):
        figure = Figure()
        figure.subplots().plot([0, 1], [0, 1], clip_on=True, color=INK)
        figures.append(svg(Plot(name, "", figure)))
    assert all(INK not in text and "var(--ink)" in text for text in figures)
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in figures]
    assert not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", figures[0])) <= ids[0]


@pytest.mark.timeout(900)  # several processes start, which takes long on a busy machine
def test_the_command_from_yaml_to_report(bench_file, tmp_path, capsys):
    path = bench_file(["toys.Toy", "toys.Crash"], seeds=[0])
    markdown = tmp_path / "results.md"
    main(["bench", str(path), "--methods", "Toy", "--markdown", str(markdown)])
    said = capsys.readouterr().out
    assert "2 cells, 2 to compute" in said
    assert "[2/2] Toy · toy · all · seed 0: 100.00 (all)" in said
    output = tmp_path / "out"
    assert {p.name for p in output.iterdir()} == {
        *("cells", "locks", "plots", "problems", "report.html", "results.csv", "results.json", "results.md")
    }
    assert {p.suffix for p in (output / "plots").iterdir()} == {".png"}
    assert "| Toy | 100.00 |" in markdown.read_text()
    (board,) = json.loads((output / "results.json").read_text())
    assert board["entries"][0]["groups"]["all"]["routed"] == 100.0
    main(["bench", str(path), "--methods", "Toy", "--report-only"])
    assert "2 cells, 0 to compute" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--methods", "Nobody"], "--methods names ['Nobody'], but the bench toy has Toy"),
        (["--workers", "0"], "--workers is 0"),
        (["--backend", "dask"], "a cluster needs `--backend dask --scheduler ADDRESS`"),
        (["--scheduler", "tcp://x:1"], "this machine neither of them"),
        (["--backend", "dask", "--scheduler", "nowhere"], "No Dask scheduler answers at nowhere"),
    ],
)
def test_contradictory_arguments_are_refused(bench_file, capsys, argv, message):
    with pytest.raises(SystemExit, match="1"):
        main(["bench", str(bench_file(["toys.Toy"])), *argv])
    assert message in capsys.readouterr().err


def test_one_output_folder_for_two_benches_is_refused(bench_file, tmp_path, capsys):
    path = str(bench_file(["toys.Toy"]))
    with pytest.raises(SystemExit, match="1"):
        main(["bench", path, path, "--output", str(tmp_path / "x")])
    assert "--output names one folder, but 2 benches are given" in capsys.readouterr().err


def test_weights_and_biases_has_every_cell_and_a_summary(compute, bench_file, tmp_path, monkeypatch):
    import wandb

    from satlight.bench.cells import plan
    from satlight.bench.config import load_config

    class Run:
        def __init__(self, **settings):
            self.settings, self.summary, self.logged = settings, {}, {}

        def log(self, values):
            self.logged |= values

        def finish(self):
            runs.append(self)

    runs = []
    monkeypatch.setattr(wandb, "init", lambda **settings: Run(**settings))
    path = bench_file(["toys.Toy", "toys.Crash"], wandb="demo")
    plots = board_plots(compute(path)[0])
    config = load_config(path)
    for _ in range(2):  # the second time there is only the summary to renew
        write_report(config, plan(config), Path(config.output), "")
    assert [run.settings.get("group") for run in runs] == ["toy / all", "toy / all", None, None]
    cell, summary = runs[0], runs[2]
    assert (cell.settings["project"], cell.settings["job_type"]) == ("demo", "Toy")
    assert cell.summary["test/all/routed"] == 100.0
    assert cell.settings["config"]["seed"] == 0
    assert set(summary.logged) == {"leaderboards", *(f"plots/{plot.name}" for plot in plots)}
    assert "best_single" in summary.logged["leaderboards"].get_column("router")
