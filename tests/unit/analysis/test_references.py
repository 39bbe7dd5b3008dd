"""The shipped literature figures: complete, cited, and consistent with each other."""

import dataclasses
from statistics import fmean, median

import pytest

from pbeauty.analysis import references
from pbeauty.game.experiment import Game


@pytest.mark.parametrize(
    ("p", "average"),
    [(2 / 3, [36.7, 23.9, 15.9, 9.2]), (1 / 2, [27.0, 11.1, 3.8, 7.2])],
)
def test_mean_over_sessions_is_the_published_one(p, average):
    trajectory = references.human_means(p)
    assert [round(value, 1) for value in trajectory.average] == average
    assert trajectory.source.short == "Nagel 1995"


def test_sessions_have_four_periods_each():
    assert [len(references.human_means(p).sessions) for p in (1 / 2, 2 / 3)] == [3, 4]
    for trajectory in references.load().sessions:
        assert {len(session) for session in trajectory.sessions} == {4}


@pytest.mark.parametrize("p", [4 / 3, 0.67, 0.51, 0.6, 0.0])
def test_no_people_at_other_multipliers(p):
    assert references.human_means(p) is None


def test_rounded_multiplier_counts_as_the_fraction():
    assert references.human_means(0.667) is references.human_means(2 / 3)


def _entries():
    loaded = references.load()
    for field in dataclasses.fields(loaded):
        value = getattr(loaded, field.name)
        if field.name != "sources":
            yield from value if isinstance(value, tuple) else (value,)


def test_every_entry_is_cited_and_every_source_used():
    used = {entry.source.key for entry in _entries()}
    assert used == {source.key for source in references.load().sources}
    for source in references.load().sources:
        assert len(source.citation) > 60
        assert any(character.isdigit() for character in source.short)
        assert source.short.split()[0].rstrip(",") in source.citation


def test_secondary_sources_are_marked():
    marked = {source.key for source in references.load().sources if source.secondary}
    assert marked == {"financial-times-1997", "politiken-2005"}


def test_first_period_of_nagel_agrees_with_her_sessions():
    # Sessions differ in size, so that the pooled mean is near the mean over sessions, not equal to it.
    pools = {round(pool.p, 3): pool for pool in references.load().pools if pool.source.key == "nagel-1995"}
    assert {pool.n for pool in pools.values()} == {48, 67, 51}
    for p in (1 / 2, 2 / 3):
        assert pools[round(p, 3)].mean == pytest.approx(references.human_means(p).average[0], abs=0.5)


def test_table_ii_is_complete():
    """Median and mean of tau over the 24 rows are those that the authors print: 1.30 and 1.61."""
    rows = [pool for pool in references.load().pools if pool.source.key == "camerer-ho-chong-2004"]
    assert len(rows) == 24
    assert (round(median(row.tau for row in rows), 2), round(fmean(row.tau for row in rows), 2)) == (1.3, 1.61)


def test_nobody_is_in_two_pools_that_runs_are_compared_with():
    labels = {pool.label for pool in references.load().pools}
    for pool in references.load().pools:
        assert pool.same_people is None or pool.same_people in labels
    alone = [pool for pool in references.load().pools if pool.plays(Game()) and pool.same_people is None]
    assert len({pool.label for pool in alone}) == len(alone) == 11
    assert not any("Financial Times" in pool.label or pool.source.key == "nagel-1995" for pool in alone)


def test_what_gamabench_is_is_said():
    found = [path for path in references.load().models if path.source.key == "gamabench-2024"]
    assert {path.asked for path in found} == {"mean of 5 games of 10 agents"}
    assert "v5" in found[0].source.citation


def test_llm_tables_are_complete_and_agree_with_each_other():
    cells = {(one.model, one.prompt): one for one in references.load().models if one.prompt}
    assert len(cells) == 24
    assert cells["Qwen2-7B", "P3"].means == (26.45,)
    assert "all are rational, think" in cells["Qwen2-7B", "P4"].asked
    assert cells["Qwen2-72B", "P2"].means == (19.15, 11.06, 6.11, 3.43, 2.02)
    assert all(len(one.rounds) == len(one.means) for one in references.load().models)


def test_loaded_once_and_immutable():
    assert references.load() is references.load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        references.load().pools[0].mean = 2.0
