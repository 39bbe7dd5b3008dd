"""What `pbeauty analyze` prints: the answer first, nothing wider than the terminal, nothing cut off."""

import json

import numpy as np
import pytest
from made import experiment, make

from pbeauty.analysis.findings import examine
from pbeauty.analysis.intervals import Bounds, Difference, Estimate
from pbeauty.cli import tables
from pbeauty.cli.main import main
from pbeauty.game.records import ReadingRule
from pbeauty.plots import run_drawings
from pbeauty.storage.run_reader import Run

GROUPS = [{"name": f"economists-of-the-{i}th-school", "count": 40, "kind": "llm"} for i in range(3)]
GENERATOR = np.random.default_rng(2)
GUESSES = np.clip(GENERATOR.normal(37, 20, (4, 120)), 0, 100).round() * np.array([[1], [0.6], [0.4], [0.3]])
GUESSES[:, :30] = np.nan


def model(folder, *, seed=1, **settings):
    """A run of models that are not the demo, with unusable replies and groups."""
    described = experiment(120, population=GROUPS, rounds=4, seed=seed, **settings)
    return make(folder, GUESSES, described, readings=1 + GENERATOR.integers(0, 6, GUESSES.shape))


def printed(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three cases of three runs each, and what is said of them together."""
    folder = tmp_path_factory.mktemp("sweep")
    for index, p in enumerate(("2/3", "1/2", "0.9")):
        for seed in range(3):
            model(folder / f"{index}-{seed}", seed=seed, multiplier=p)
    return folder, examine([folder], 0.95, 3.0)


@pytest.fixture(params=[80, 120])
def width(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def whole(out, made):
    """Every cell but those of the first column, and every word of every heading, stands unbroken in what is printed."""
    for table in made:
        for heading in table.headings:
            for word in heading.split():
                assert word in out, (table.title, word)
        for row in table.rows[:60]:
            for cell in row[1:]:
                assert cell in out, (table.title, cell)


def test_a_run_fits_the_terminal(tmp_path, width, capsys):
    crowd = make(tmp_path / "crowd", GUESSES, experiment(120, rounds=4))
    for folder in (model(tmp_path / "run"), crowd):
        (one,) = examine([folder], 0.95).examined
        for options, made in (([], tables.summary(one)), (["--full"], tables.run_tables(one))):
            out = printed(capsys, "analyze", folder, *options)
            assert max(map(len, out.splitlines())) <= width
            whole(out, made)


def test_a_sweep_fits_the_terminal_and_begins_with_its_cases(sweep, monkeypatch, capsys):
    folder, findings = sweep
    asked = []
    monkeypatch.setattr("pbeauty.analysis.findings.examine", lambda *given: asked.append(given) or findings)
    for width, options, made in (
        (80, ["--power", "3"], tables.sweep_summary(findings) + tables.power_table(findings)),
        (80, ["--full"], tables.sweep_tables(findings)),
        (120, ["--full"], tables.sweep_tables(findings)),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        out = printed(capsys, "analyze", folder, *options)
        assert max(map(len, out.splitlines())) <= width
        assert out.index("Cases ──") < out.index("Each case less the first")
        whole(out, made)
    assert asked == [([folder], 0.95, power, None) for power in (3.0, None, None)]


def test_in_a_narrow_terminal_no_column_is_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    (one,) = examine([model(tmp_path)], 0.95).examined
    whole(printed(capsys, "analyze", tmp_path, "--full"), tables.run_tables(one))


def test_in_a_file_it_is_a_hundred_wide(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    out = printed(capsys, "analyze", model(tmp_path))
    assert 80 < max(map(len, out.splitlines())) <= 100


def test_the_summary_begins_with_what_was_played_and_what_is_missing(tmp_path, capsys):
    out = " ".join(printed(capsys, "analyze", model(tmp_path)).split())
    assert "120 participants" in out
    assert "target 2/3 x mean" in out
    assert "UNUSABLE REPLIES: 120 of 480 (25.0 %)" in out
    assert out.index("UNUSABLE REPLIES") < out.index("Guesses by round") < out.index("Levels of reasoning")
    low = GUESSES[0, 30:].sum() / 120
    assert f"{tables.short(low)} to {tables.short(low + 25)}" in out
    assert "Difference of means" not in out, "more than the summary"
    none = " ".join(printed(capsys, "analyze", make(tmp_path / "all", GUESSES[:, 30:])).split())
    assert "unusable replies: none" in none


def test_how_replies_were_read(tmp_path, capsys):
    rules = np.full((1, 40), ReadingRule.NUMBER_ALONE)
    rules[0, 10:20], rules[0, 20] = ReadingRule.OWN_WORDS, ReadingRule.NONE
    guesses = np.arange(40.0)[None]
    guesses[0, 20] = np.nan
    population = [{"name": "players", "count": 40, "kind": "llm"}]
    make(tmp_path, guesses, experiment(40, population=population), readings=rules)
    (found,) = json.loads(printed(capsys, "analyze", tmp_path, "--json"))["runs"][0]["readings"]
    assert found["shares"]["own words"] == pytest.approx(10 / 39)
    assert found["shares"]["number alone"] == pytest.approx(29 / 39)
    assert found["mean"] == pytest.approx(np.nanmean(guesses))
    assert found["strict"]["value"] == pytest.approx(np.mean([*range(10), *range(21, 40)]))
    assert "How replies were read" in printed(capsys, "analyze", tmp_path)


PLAIN = {
    "round", "who", "by", "group", "case", "key", "multiplier", "min", "max", "mean", "median", "target", "difference",
    "lower quartile", "upper quartile", "at mode (%)", "from", "reference", "ours less theirs", "their mean",
}  # fmt: skip
"""Headings that say what they are."""


def test_every_column_is_explained(sweep, tmp_path):
    folder, findings = sweep
    crowd = make(tmp_path / "crowd", GUESSES, experiment(120, rounds=4))
    made = [table for one in examine([folder / "0-0", crowd], 0.95).examined for table in tables.run_tables(one)]
    made += tables.sweep_tables(findings)
    assert len({table.title for table in made}) > 15
    unexplained = []
    for table in made:
        if table.title.startswith(("How replies", "Unusable", "From level")):
            continue  # their columns are statuses, rules of reading, and the levels of the table of levels
        for heading in table.headings:
            word = heading.removesuffix(" (%)").removesuffix(" (Holm)")
            known = word in PLAIN or word.startswith(("mean, round", "round ")) or word in "0123"
            if not known and word not in table.note:
                unexplained.append((table.title, heading))
    assert not unexplained


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.001, "0.001"), (1.234, "1.23"), (12.34, "12.3"), (99.96, "100"), (1234.5, "1,234"),
     (-7.5, "-7.50"), (float("nan"), "-")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert tables.short(value) == text


def test_a_tau_that_is_not_told_apart():
    inf = float("inf")
    assert tables.tau(Estimate(inf, inf, inf)) == ">10"
    assert tables.tau(Estimate(-inf, -inf, -inf)) == "<0"
    assert tables.tau(Estimate(8.0, 6.5, inf)) == "8.00 [6.50, >10]"
    assert tables.tau(Estimate(0.1, -inf, 0.4)) == "0.10 [<0, 0.40]"
    assert tables.tau(Estimate(1.5)) == "1.50"


def test_what_unusable_replies_could_turn_is_not_identified():
    gap = Estimate(5.0, 3.0, 7.0)
    assert tables.tested(Difference(gap, 0.001, 6.0, Bounds(-2, 9), 0.002))[-1] == "not identified"
    assert tables.tested(Difference(gap, 0.001, 6.0, Bounds(1, 9), 0.002))[-1] == "0.002"


def test_columns_that_are_empty_throughout_are_left_out_with_what_is_said_of_them(tmp_path):
    for index, p in enumerate(("2/3", "1/2")):
        model(tmp_path / str(index), multiplier=p)
    findings = examine([tmp_path], 0.95)
    (probes,) = [table for table in tables.sweep_summary(findings) if table.title.startswith("Probes")]
    assert probes.headings == ["multiplier", "valid", "textbook (%)", "own (%)", "p recited"]
    assert "distance" not in probes.note
    made = tables.sweep_tables(findings) + [table for one in findings.examined for table in tables.run_tables(one)]
    for table in made:
        for heading, *cells in list(zip(table.headings, *table.rows, strict=True))[1:]:
            assert set(cells) - {"-", ""}, (table.title, heading)


def test_a_case_of_a_sweep_is_called_by_its_name(tmp_path):
    """Which is that of its folder; the experiment's is the same in all cases."""
    (tmp_path / "cases.csv").write_text("case,state\nhalf,finished\n")
    (one,) = examine([model(tmp_path / "half", multiplier="1/2")], 0.95).examined
    assert tables.headline(one)[0].startswith("half, seed 1: 120 participants")
    with Run(tmp_path / "half") as run:
        (figure, *_) = (drawing.draw() for drawing in run_drawings(run, one.analysis))
    assert figure.texts[0].get_text() == "half: round 1 of 4"
