"""Every experiment of the paper is there, and is played on a small scale with the demo model."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import h5py
import mpi
import numpy as np
import pytest

from pbeauty.cli.export import export
from pbeauty.cli.prompts import render
from pbeauty.config.loader import load
from pbeauty.config.parsing import parse
from pbeauty.config.sweep import load_sweep
from pbeauty.game.experiment import LLMGroup
from pbeauty.storage.run_reader import Run

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = sorted(path for path in (CONFIGS / "paper").glob("*.yaml") if path.stem not in ("models", "demo"))
CASES = {
    "prompts": 24, "rounds": 12, "temperature": 4, "child": 1, "ratios": 18, "shifted": 3, "education": 3,
    "profession": 3, "one-expert": 1, "mixture-individuals": 1, "mixture-groups": 1, "million": 20, "scaling": 8,
}  # fmt: skip


def cases(name):
    return [case.experiment for case in load_sweep(CONFIGS / f"paper/{name}.yaml").cases]


def test_every_experiment_of_the_paper_is_there_and_has_a_demo():
    assert {path.stem for path in EXPERIMENTS} == {*CASES, "million-random"}
    assert {name: len(cases(name)) for name in CASES} == CASES
    for path in EXPERIMENTS:
        comment = " ".join(line for line in path.read_text().splitlines() if line.startswith("# "))
        assert "arXiv 2407.17789v2" in comment
        assert re.search("section|figure|table", comment), "a comment says what it is"
        assert re.search("To be seen|To be compared|no figure", comment), "and what must come of it"
    table = (CONFIGS / "paper/README.md").read_text()
    assert all(f"| `{path.name}` |" in table for path in EXPERIMENTS)
    demo = parse((CONFIGS / "paper/demo.yaml").read_text(), "")
    assert sorted(Path(entry["base"]).stem for entry in demo["base"]) == sorted(path.stem for path in EXPERIMENTS)
    for case in load_sweep(CONFIGS / "paper/demo.yaml").cases:
        assert set(case.experiment.models) == {"demo"}
        assert case.experiment.count <= 1000


def test_the_experiments_are_those_of_the_paper():
    for name in CASES:
        for experiment in cases(name):
            groups = [group for group in experiment.population if isinstance(group, LLMGroup)]
            assert all(group.extraction == "model" for group in groups), "two calls for every answer"
            assert experiment.game.announce[0] == "target"
            assert experiment.game.tolerance is None, "the nearest wins"
    assert {experiment.population[0].model for experiment in cases("temperature")} == {"qwen2-72b"}
    assert {experiment.count for experiment in cases("million")} == {100, 1000, 10_000, 100_000, 1_000_000}
    assert load(CONFIGS / "paper/million-random.yaml").count == 1_000_000
    for name, count in (("education", 1000), ("profession", 1200)):
        for experiment in cases(name):
            (group,) = experiment.population
            assert (group.count, group.system_prompt) == (count, "background")
            assert dict(group.personas.attributes["gender"]) == {"female": 0.5, "male": 0.5}
    (groups,) = cases("mixture-groups")
    assert groups.game.players == "groups"
    for group in groups.population:
        assert groups.prompts.system[group.system_prompt] == "{rules} You are in {group}."
    for experiment in cases("shifted"):
        assert (experiment.game.offset, experiment.game.p) == (5, 0.5)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder of the demo, which one job has played on a moderator and an engine."""
    folder = tmp_path_factory.mktemp("paper")
    done = mpi.mpirun(2, "run", CONFIGS / "paper/demo.yaml", "--out", folder, timeout=400)
    assert done.code == 0, done
    assert "32 of 32 cases finished" in done.out
    return folder


def test_the_paper_is_played_on_a_small_scale_in_one_job(played):
    with (played / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["state"] for row in rows} == {"finished"}
    assert min(float(row["valid_share"]) for row in rows) > 0.5


def test_winners_exist_and_two_calls_were_made(played):
    for path in played.glob("*/run.h5"):
        with Run(path) as run:
            assert all(run.outcome(index).n_winners >= 1 for index in range(run.round_count)), path
            if not run.experiment.used_models:
                continue
            replies = sorted((path.parent / "replies/0001").glob("*.h5"))
            calls = np.concatenate([h5py.File(path)["purpose"][:] for path in replies])
            answers, extractions = np.sum(calls == 0), np.sum(calls == 2)
            assert answers == run.experiment.count
            assert extractions >= 0.9 * answers, path


def test_offsets_groups_and_people_are_as_the_paper_has_them(played):
    with Run(played / "shifted") as run:
        outcome = run.outcome(0)
        assert outcome.target == pytest.approx(5 + outcome.mean / 2)
        assert run.announcement(1).quantities["target"] == outcome.target, "the 5 is announced, too"
    with Run(played / "mixture-groups") as run:
        numbers = run.read("group_number", 0)
        assert run.outcome(0).mean == pytest.approx(numbers.mean())
        np.testing.assert_array_equal(run.announcement(1).group_numbers, numbers)
        assert run.outcome(0).n_winners < len(run.experiment.population), "not every group wins"
    with Run(played / "profession") as run:
        assert np.bincount(run.file["participants/profession"][:]).tolist() == [0, *[4] * 6]
        assert np.bincount(run.file["participants/gender"][:]).tolist() == [0, 12, 12]


def test_participants_are_told_what_the_paper_tells_them(played):
    def shown(prompt, name):
        with Run(played / name) as run:
            return render(prompt, run.experiment)

    assert "1/2 times the average of all numbers picked in that round, plus 5" in shown("classic", "shifted")
    assert "The target was 33.33." in shown("step-by-step", "shifted"), "which is the one with the 5"
    assert "seven years" in shown("background", "child")
    assert "Whoever is nearest to the target wins" in shown("classic", "mixture-individuals")
    assert shown("in-group", "mixture-groups").endswith(
        "A group whose number is nearest to the target wins the round. You are in group-1."
    )
    assert "The groups' numbers were: group-1 33.33, group-2" in shown("step-by-step", "mixture-groups")
    assert "exactly one player whose profession is professor of game theory" in shown(
        "background-one-expert", "one-expert"
    )


def test_the_example_would_have_its_results_in_the_same_folders(played, tmp_path):
    folders = export([played / name for name in ("shifted", "one-expert", "million-random")], "agentscope", tmp_path)
    assert [folder.relative_to(tmp_path).as_posix().rpartition("/")[0] for folder in folders] == [
        f"{played.name}/{settings}"
        for settings in ("demo/6-2-12-1-0.500", "demo/13-2-25-1-0.667", "random/1-1-1000-1-0.667")
    ]
