"""Sweeps: what cases come of a file, and all of them in one job."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import mpi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import make

from pbeauty.cli.watch import watch
from pbeauty.config.parsing import to_yaml
from pbeauty.config.sweep import is_sweep, load_sweep
from pbeauty.errors import ConfigError
from pbeauty.storage.run_reader import Run

CONFIGS = Path(__file__).parents[3] / "configs"
BIRDS = (sys.executable, str(Path(__file__).parents[2] / "support/parrot.py"))
BASE = "name: base\nseed: 4\ngame: {rounds: 2}\npopulation: [{name: crowd, count: 20, kind: uniform}]\n"


def written(folder, text, **files):
    (folder / "base.yaml").write_text(BASE)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    (folder / "sweep.yaml").write_text(text)
    return folder / "sweep.yaml"


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        load_sweep(path)
    return str(caught.value)


# --- files -------------------------------------------------------------------------------------------------


def test_every_combination_is_a_case_with_a_name_of_its_own(tmp_path):
    path = written(
        tmp_path,
        "base: base.yaml\nset: {game.rounds: 3}\nvary: {game.multiplier: [1/2, 2/3], population.0.count: [5, 6]}",
    )
    sweep = load_sweep(path)
    assert [case.name for case in sweep.cases] == [
        "multiplier-1-2_count-5",
        "multiplier-1-2_count-6",
        "multiplier-2-3_count-5",
        "multiplier-2-3_count-6",
    ]
    found = [(case.experiment.game.p, case.experiment.count) for case in sweep.cases]
    assert found == [(p, count) for p in (1 / 2, 2 / 3) for count in (5, 6)]
    assert {case.experiment.game.rounds for case in sweep.cases} == {3}
    assert sweep.pick("3") is sweep.pick("multiplier-2-3_count-5") is sweep.cases[2]
    assert is_sweep(path)
    assert not is_sweep(tmp_path / "base.yaml")


def test_tables_and_sweeps_of_sweeps(tmp_path):
    path = written(
        tmp_path,
        "base: base.yaml\ntable: cases.csv\nset: {sessions: 2}",
        cases_csv="case, game.multiplier, game.aggregate\nfirst, 1/2, mean\nsecond, 0.9, median\n",
    )
    cases = load_sweep(path).cases
    assert [(case.name, case.experiment.sessions) for case in cases] == [("first", 2), ("second", 2)]
    assert (cases[1].experiment.game.multiplier, cases[1].experiment.game.aggregate) == ("0.9", "median")
    (tmp_path / "top.yaml").write_text("base: [sweep.yaml, base.yaml]\nset: {population.0.count: 7}")
    names = [case.name for case in load_sweep(tmp_path / "top.yaml").cases]
    assert names == ["sweep_first", "sweep_second", "base"]
    assert {case.experiment.session_size for case in load_sweep(tmp_path / "top.yaml").cases} == {7}
    assert len(load_sweep(tmp_path / "top.yaml", ["game.rounds=9"]).cases) == 3


def test_what_a_file_gives_takes_the_place_of_what_its_base_varies(tmp_path):
    """Cases of the base that differ in nothing else become one, under the name of the first."""
    written(
        tmp_path,
        "base: base.yaml\n"
        "table: [{case: few, population.0.count: 5}, {case: many, population.0.count: 50}]\n"
        "vary: {game.multiplier: [1/2, 2/3], game.rounds: [1, 2]}",
    )
    (tmp_path / "top.yaml").write_text("base: sweep.yaml\nset: {game.multiplier: 0.9}")
    cases = load_sweep(tmp_path / "top.yaml").cases
    assert [case.name for case in cases] == ["few_rounds-1", "few_rounds-2", "many_rounds-1", "many_rounds-2"]
    assert {case.experiment.game.multiplier for case in cases} == {"0.9"}
    (tmp_path / "top.yaml").write_text("base: sweep.yaml\nset: {game: {}, population.0.count: 3}")
    assert [case.name for case in load_sweep(tmp_path / "top.yaml").cases] == ["few"]
    (tmp_path / "top.yaml").write_text("base: sweep.yaml\nset: {game.rounds: 1}\nvary: {game.multiplier: [1/4, 1/5]}")
    cases = load_sweep(tmp_path / "top.yaml").cases
    assert [(case.name, case.experiment.game.multiplier) for case in cases] == [
        ("few_multiplier-1-4", "1/4"),
        ("few_multiplier-1-5", "1/5"),
        ("many_multiplier-1-4", "1/4"),
        ("many_multiplier-1-5", "1/5"),
    ]
    (tmp_path / "top.yaml").write_text("base: sweep.yaml\nset: {game.announce: []}")
    assert len(load_sweep(tmp_path / "top.yaml").cases) == 8, "another key of the same section"


def test_what_the_command_line_sets_makes_one_case_of_those_that_differ_in_nothing_else(tmp_path):
    path = written(tmp_path, "base: base.yaml\nvary: {game.multiplier: [1/2, 2/3], game.rounds: [1, 2]}")
    cases = load_sweep(path, ["game.multiplier=0.9"]).cases
    assert [case.name for case in cases] == ["rounds-1", "rounds-2"]
    assert {case.experiment.game.multiplier for case in cases} == {"0.9"}
    assert len(load_sweep(path, ["game={}"]).cases) == 1
    (case,) = load_sweep(path, ["game.rounds=2", "game={high: 10}", "game.rounds=3"]).cases
    assert (case.experiment.game.rounds, case.experiment.game.high) == (3, 10), "one after the other"
    with pytest.raises(ConfigError, match=r"--set population\.3\.count=4: '3' is not an entry"):
        load_sweep(path, ["population.3.count=4"])


def test_cases_are_named_as_their_values_are_written(tmp_path):
    path = written(
        tmp_path,
        "x-many: &many [1e3, 0x10]\nbase: base.yaml\nvary: {population.0.count: *many}\ntable: cases.csv",
        cases_csv="case,game.high\n007,100\n1e3,0100.50\n",
    )
    assert [case.name for case in load_sweep(path).cases] == [
        "007_count-1e3",
        "007_count-0x10",
        "1e3_count-1e3",
        "1e3_count-0x10",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: base.yaml\nvary: {game.ronds: [1, 2]}", "game.ronds: unknown key; did you mean 'rounds'?"),
        ("base: base.yaml\nvary: {population.3.count: [1]}", "'3' is not an entry of a list of 1"),
        ("base: base.yaml\nvary: {game.rounds: 3}", "vary.game.rounds: expected a list, found 3"),
        ("base: base.yaml\nvery: {}", "very: unknown key; did you mean 'vary'?"),
        ("base: none.yaml", "cannot read"),
        ("base: 3", "base: expected a file"),
        ("base: sweep.yaml", "nested too deeply"),
        ("base: base.yaml\nset: {sessions: 0}", "sessions: expected a number greater than or equal to 1, found 0"),
        ("base: base.yaml\ntable: cases.csv", "a value for each of its 2 columns: line 3: 1 values"),
        (
            "base: base.yaml\ntable: [{game.rounds: 1, seed: 2}, {seed: 1}]",
            "case 2 gives seed, and the first one game.rounds, seed",
        ),
        (
            "base: base.yaml\ntable: [{seed: 2}, {seed: 1, game.rounds: 1}]",
            "case 2 gives seed, game.rounds, and the first one seed",
        ),
        ("base: base.yaml\ntable: twice.csv", "table: twice.csv has the column game.rounds more than once"),
        ("base: base.yaml\nname: ../x\nset: {game.rounds: 1}", "name: expected letters, digits"),
        ("base: base.yaml\nset: {seed: 1}\nvary: {seed: [2, 3]}", "seed is given in set and in vary"),
        ("base: base.yaml\nset: {game: {}}\nvary: {game.low: [2, 3]}", "game is given in set, and game.low, which is"),
        ("base: base.yaml\nset: {game.low: 1}\nvary: {game: [{}]}", "game is given in vary, and game.low, which is"),
        ("base: base.yaml\nvary: {game.low: [1], game: [{}]}", "game.low, which is a part of it, in vary"),
        ("base: base.yaml\ntable: [{seed: 1}]\nvary: {seed: [2, 3]}", "seed is given in table and in vary"),
        ("base: base.yaml\nvary: {'': [1]}", "'' is no key; expected one such as game.rounds"),
        ("base: base.yaml\nset: {game..low: 1}", "'game..low' is no key"),
        ("base: base.yaml\nvary: {seed: [1, 2, 1]}", "cases 1 and 3 are the same experiment"),
        ("base: base.yaml\nvary: {game.multiplier: [1/2, 0.5]}", "cases 1 and 2 are the same experiment"),
        ("base: base.yaml\nvary: {game.low: [0, -0.0, 0e3]}", "cases 1 and 2 are the same experiment"),
        ("base: base.yaml\ntable: [{case: a, seed: 1}, {case: b, seed: 1}]", "cases 1 and 2 are the same"),
        ("base: base.yaml\nvary: {results: [a, b]}", "cases 1 and 2 are the same experiment"),
        ("base: base.yaml\ntable: [{case: cases.csv, seed: 1}]", "a case cannot be called cases.csv"),
        (
            "base: base.yaml\ntable: [{case: p+5, seed: 1}]",
            "a case cannot be called 'p+5', since that names its folder",
        ),
        ("base: base.yaml\ntable: [{case: -5, seed: 1}]", "a case cannot be called '-5'"),
        ("base: base.yaml\ntable: [{case: LIVE.json, seed: 1}]", "a case cannot be called LIVE.json"),
        ("base: base.yaml\ntable: [{case: run.h5, seed: 1}]", "a case cannot be called run.h5"),
        ("base: [lock.yaml]", "a case cannot be called lock, which is a file in the sweep's folder"),
        (
            "base: base.yaml\ntable: [{case: a, seed: 1}, {case: A, seed: 2}]",
            "more than one case is called a (small letters",
        ),
        ("base: base.yaml\ntable: alike.csv", "table: more than one case is called x"),
        ("base: [base.yaml, base.yaml]", "cases 1 and 2 are the same experiment"),
        (
            f"base: base.yaml\nvary: {{seed: {[*range(3000)]}, game.rounds: {[*range(1, 3000)]}}}",
            "more than 100,000 cases",
        ),
    ],
)
def test_bad_sweeps_are_refused(text, said, tmp_path):
    assert said in refusal(
        written(
            tmp_path,
            text,
            cases_csv="game.rounds,seed\n1,2\n3\n",
            lock_yaml=BASE,
            alike_csv="case,seed\nx,1\nX,2\n",
            twice_csv="game.rounds,game.rounds\n1,2\n",
        )
    )


@given(st.lists(st.text("aA1/_-. \u00e9\u4e2d", max_size=90), min_size=2, max_size=6, unique=True))
def test_every_case_has_a_folder_of_its_own_whatever_its_values_are_called(texts):
    """Also on file systems that take small letters and capitals for the same."""
    texts = [f"\u00a7{text}" for text in texts]
    text = to_yaml({"base": "base.yaml", "vary": {"prompts.system.mine": texts}})
    with TemporaryDirectory() as folder:
        cases = load_sweep(written(Path(folder), text)).cases
    names = [case.name for case in cases]
    assert len({name.lower() for name in names}) == len(texts)
    assert all(re.fullmatch("mine-[A-Za-z0-9._-]+", name) and len(name) < 100 for name in names)
    assert [case.experiment.prompts.system["mine"] for case in cases] == texts


def test_a_name_that_is_taken_is_not_given_again(tmp_path):
    rows = "[{case: a_3, seed: 1}, {case: a, seed: 2}]"
    path = written(tmp_path, f"base: [base.yaml, {{base: base.yaml, table: {rows}}}, my~base.yaml, my%base.yaml]")
    for number, sign in enumerate("~%"):
        (tmp_path / f"my{sign}base.yaml").write_text(BASE + f"sessions: {number + 2}")
    assert [case.name for case in load_sweep(path).cases] == ["base", "base_a_3", "base_a", "my-base", "my-base_5"]
    assert load_sweep(path.rename(tmp_path / "my sweep!.yaml")).name == "my-sweep"


def test_the_files_that_come_out_of_a_pipe_names_are_those_of_the_working_directory(tmp_path, monkeypatch):
    written(tmp_path, "base: base.yaml\nset: {prompts: prompts.yaml}\ntable: rows.yaml")
    (tmp_path / "rows.yaml").write_text("[{seed: 5}]")
    (tmp_path / "prompts.yaml").write_text("retry: Again!")
    monkeypatch.chdir(tmp_path)
    with os.fdopen(os.open("sweep.yaml", os.O_RDONLY)) as file:
        (case,) = load_sweep(Path(f"/dev/fd/{file.fileno()}")).cases
    assert (case.experiment.seed, case.experiment.prompts.retry) == (5, "Again!")


def test_a_number_is_a_case_by_its_place_and_never_by_its_name(tmp_path):
    """Jobs of an array ask for cases by number."""
    sweep = load_sweep(written(tmp_path, "base: base.yaml\ntable: [{case: 2, seed: 1}, {case: 1, seed: 2}]"))
    assert [sweep.pick(which).experiment.seed for which in ("1", "2")] == [1, 2]


def test_all_faults_of_all_cases_are_told_once(tmp_path):
    path = written(
        tmp_path, "base: base.yaml\nvary: {game.rounds: [1, 0, 0], game.multiplier: [1/2, nonsense], sed: [1]}"
    )
    told = refusal(path).splitlines()
    assert told[0].endswith("3 errors")
    assert [line.split(":")[0].strip() for line in told[1:]] == ["sed", "game.multiplier", "game.rounds"]
    assert told[1].endswith("(case 1)")


def test_faults_of_the_sweep_its_table_and_its_base_are_told_together(tmp_path):
    """Whatever is wrong, wherever: one message, and nothing that only seems to be wrong because of the rest."""
    path = written(
        tmp_path,
        "base: wrong.yaml\ntable: cases.csv\nset: {sessions: 0}\nvery: 1\n"
        "vary: {game.ronds: [1, 2], population.7.count: [3], game.multiplier: [1/2, nonsense]}",
        cases_csv="population.0.count,seed\n5,2\n3\n\n4,5,6\n",
        few_jsonl='{"background": "You are Ann."}\n',
        wrong_yaml="name: base\nprompts: {system: {mine: 'Do {what}'}}\npopulation:\n"
        "  - {name: a, kind: llm, system_prompt: clasic}\n"  # the table was to give the count
        "  - {name: a, count: 2, kind: llm, system_prompt: mine}\n"
        "  - {name: b, count: 2, kind: llm, system_prompt: background, personas: {file: few.jsonl}}\n"
        "  - {name: c, count: 2, kind: llm, personas: {attributes: {school: {x: 0.5, y: 0.4}}}}\n",
    )
    told = refusal(path)
    for words in (
        "sweep.yaml: very: unknown key; did you mean 'vary'?",
        "sessions: expected a number greater than or equal to 1, found 0",
        "sweep.yaml: table: cases.csv has lines without a value for each of its 2 columns: line 3: 1 values; line 5: 3",
        "sweep.yaml: population.7.count: '7' is not an entry of a list of 4",
        "game.ronds: unknown key; did you mean 'rounds'?",
        "game.multiplier: ",
        "population.0.system_prompt: no system prompt 'clasic'; did you mean 'classic'?",
        "population.1.name: 'a' is also the name of group 0",
        "population.1.system_prompt: 'mine' needs {what}, which has no value here",
        "population.2.personas.file: ",
        "population.3.personas.attributes.school: the shares add up to 0.9, and not to 1",
    ):
        assert sum(line.strip().startswith(words) for line in told.splitlines()) == 1, (words, told)
    assert "missing" not in told
    assert told.splitlines()[0].endswith("11 errors"), told
    done = mpi.mpirun(2, "run", path, "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, ""), done
    assert done.err.count("population.1.name") == 1, "one rank tells it"
    assert not (tmp_path / "out").exists()


def test_a_bad_sweep_starts_nothing(tmp_path):
    path = written(tmp_path, "base: base.yaml\nvary: {game.ronds: [1, 2]}")
    done = mpi.mpirun(2, "run", path, "--out", tmp_path / "out")
    assert done.code == 2, done
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


# --- jobs --------------------------------------------------------------------------------------------------

MIXED = """
name: trial
base:
  name: birds
  game: {rounds: 2}
  population: [{name: birds, count: 25, kind: llm, retries: 3}, {name: noise, count: 5, kind: uniform}]
table:
  - {case: good, population.0.count: 20, population.1.kind: uniform}
  - {case: fails, population.0.count: 25, population.1.kind: uniform}
  - {case: other, population.0.count: 26, population.1.kind: uniform}
"""


def test_a_sweep_goes_on_after_a_case_that_fails_and_skips_what_is_finished(tmp_path):
    (tmp_path / "sweep.yaml").write_text(MIXED)
    # One case's model has a context that is too small, which its ranks find out when they seat its participants.
    birds = tmp_path / "birds.py"
    birds.write_text(
        f"import os, sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'support')!r})\n"
        "import parrot, pbeauty.job.runner\n"
        "made = []\nfrom pbeauty.errors import ConfigError\nfrom pbeauty.job.participants import Participants\n"
        "class Engine(parrot.Engine):\n    def __init__(self, *a, **k):\n"
        "        super().__init__(*a, **k); made.append(1); os.write(2, b'engine %d\\n' % len(made))\n"
        "def block(experiment, *a):\n    if experiment.population[0].count == 25 and a[1]:\n"
        "        raise ConfigError('it does not fit')\n    return Participants(experiment, *a)\n"
        "pbeauty.job.runner.Engine, pbeauty.job.runner.Participants = Engine, block\n"
        "from pbeauty.cli.main import main\nsys.exit(main())\n"
    )
    arguments = "run", tmp_path / "sweep.yaml", "--out", tmp_path / "out"
    done = mpi.mpirun(3, *arguments, program=(sys.executable, str(birds)))
    assert done.code == 1, done
    assert done.left == []
    assert "it does not fit" in done.err
    assert done.err.count("engine 1") == 2, "one engine a rank"
    assert "engine 2" not in done.err
    with (tmp_path / "out/cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["state"]) for row in rows] == [
        ("good", "finished"),
        ("fails", "failed"),
        ("other", "finished"),
    ]
    assert "it does not fit" in rows[1]["reason"]
    assert rows[0]["population.0.count"] == "20"
    with Run(tmp_path / "out/good") as run:
        assert float(rows[0]["mean_first"]) == run.outcome(0).mean
    assert rows[1]["mean_first"] == "nan"
    watched = mpi.alone("watch", tmp_path / "out")
    assert (watched.code, watched.err) == (0, "")
    assert [line.partition(":")[0] for line in watched.out.splitlines()] == [
        str(tmp_path / "out" / case) for case in ("good", "fails", "other")
    ]
    assert ": failed" in watched.out
    before = (tmp_path / "out/good/run.h5").stat().st_mtime_ns
    again = mpi.mpirun(2, *arguments, program=BIRDS)
    assert again.code == 0, again
    assert "3 of 3 cases finished" in again.out
    assert again.out.count("(finished already)") == 2
    assert (tmp_path / "out/good/run.h5").stat().st_mtime_ns == before
    one = mpi.mpirun(1, "run", tmp_path / "sweep.yaml", "--case", "3", "--out", tmp_path / "alone", program=BIRDS)
    assert one.code == 0, one


def test_a_round_without_a_guess_fails_its_case_alone(tmp_path):
    text = (
        "base: {name: x, game: {rounds: 1}, population: [{name: p, count: 4, kind: llm, retries: 0}]}\n"
        "table: [{case: mute, game.low: 2000, game.high: 3000}, {case: loud, game.low: 0, game.high: 100}]"
    )
    (tmp_path / "sweep.yaml").write_text(text)
    done = mpi.mpirun(2, "run", tmp_path / "sweep.yaml", "--out", tmp_path / "out", program=BIRDS)
    assert done.code == 1, done
    assert "1 of 2 cases finished" in done.out
    with Run(tmp_path / "out/loud") as run:
        assert run.finished


def test_an_array_task_is_a_case_of_the_sweep(tmp_path):
    (tmp_path / "run.sbatch").write_text('printf "%s\\n" "$@"\n')
    environ = os.environ | {"SLURM_ARRAY_TASK_ID": "4", "RUN": str(tmp_path / "run.sbatch")}
    command = ["bash", "slurm/array.sbatch", "configs/paper/ratios.yaml"]
    done = subprocess.run(command, cwd=CONFIGS.parent, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["configs/paper/ratios.yaml", "--case", "4"]


def test_a_case_of_no_name_and_a_folder_that_cannot_be_made_are_refused_before_anything_is_played(tmp_path):
    """As where a script's variable is unset: an array task must not play the whole sweep."""
    path = written(tmp_path, "base: base.yaml\nvary: {seed: [1, 2]}")
    (tmp_path / "file").touch()
    for words, told in (
        (["--case", "", "--out", tmp_path / "out"], "sweep sweep has no case ''; it has 2"),
        (["--out", tmp_path / "file/out"], f"cannot create the result folder {tmp_path / 'file/out'}: Not a directory"),
    ):
        done = mpi.mpirun(2, "run", path, *words)
        assert (done.code, done.out) == (2, ""), done
        assert told in done.err
        assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_watch_shows_the_case_that_is_played(tmp_path, capsys):
    make(tmp_path / "sweep/one", np.full((1, 4), 20.0), name="watched")
    make(tmp_path / "sweep/two", np.full((1, 4), 20.0), name="other")
    (tmp_path / "sweep/live.json").write_text('{"state": "playing", "sweep": "s", "case": "one"}')
    watch(tmp_path / "sweep", as_json=False, once=True)
    assert "watched" in capsys.readouterr().out
    (tmp_path / "sweep/live.json").write_text('{"state": "finished", "sweep": "s", "case": ""}')
    watch(tmp_path / "sweep", as_json=False, once=True)
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["watched", "other"]
