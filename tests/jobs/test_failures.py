"""What goes wrong, under the real launcher: told once, with the right exit code, and nothing left hanging."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made import make
from mpi import LIMIT, PBEAUTY, PYTHON, Job, alone, altered, mpirun, results, rounds_kept, start

from pbeauty.errors import ConfigError
from pbeauty.mpi.world import check_world_size
from pbeauty.storage.run_reader import Run

SCRIPTED = """
name: scripted
game: {rounds: 4}
population: [{name: crowd, count: 50, kind: uniform}]
"""
ENDLESS = """
name: endless
game: {rounds: 10000}
population: [{name: crowd, count: 50, kind: uniform, think_time: 0.3}]
"""
LLM = """
name: talkers
models: {small: {path: PATH}}
population: [{name: talkers, count: 5, kind: llm, model: small}]
"""
THREE_MODELS = """
name: three
models: {one: {path: demo}, other: {path: demo}, third: {path: demo}}
population:
  - {name: a, count: 5, kind: llm, model: one}
  - {name: b, count: 5, kind: llm, model: other}
  - {name: c, count: 5, kind: llm, model: third}
"""
RANKS = [1, 3]
STREAMS = ("out", "err", "code")


def write(folder, text):
    (folder / "experiment.yaml").write_text(text)
    return folder / "experiment.yaml"


def refuse(ranks, arguments, *words, header=False, **options):
    """Runs what must be refused: exit code 2, one message that holds each of `words` once, no traceback, no results.

    What is noticed when engines load comes after the header.
    """
    done = mpirun(ranks, "run", *arguments, **options)
    assert done.code == 2, done
    assert done.left == []
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.count("pbeauty: ") == 1, f"not told exactly once:\n{done.err}"
    first = done.err.splitlines()[-1] if header else done.err
    assert first.startswith("pbeauty: "), done.err
    for word in words:
        assert done.err.count(str(word)) == 1, f"{word!r} in:\n{done.err}"
    return done


# --- bad requests ----------------------------------------------------------------------------------------------

BAD_FILES = {
    "not-yaml": ("name: [", ["is not valid YAML"]),
    "no-mapping": ("- 1", ["expected keys and values"]),
    "empty": ("", ["found nothing"]),
    "unknown-key": (SCRIPTED + "gane: {}", ["1 error", "gane: unknown key; did you mean 'game'?"]),
    "zero-over-zero": (SCRIPTED.replace("rounds: 4", "multiplier: 0/0"), ["game.multiplier: the denominator is zero"]),
    "nobody": (
        SCRIPTED.replace("count: 50", "count: 0"),
        ["population.0.count: expected a number"],
    ),
    "no-groups": ("name: x\npopulation: []", ["population: expected at least one group"]),
    "two-faults": (
        SCRIPTED + "seed: -1\ngane: 1",
        ["2 errors", "seed: expected a number", "gane: unknown key"],
    ),
}


BAD_OVERRIDES = {
    "no-value": ("game.rounds", "--set game.rounds: expected KEY=VALUE"),
    "no-such-key": ("game.ronds=3", "game.ronds: unknown key; did you mean 'rounds'?"),
    "no-such-group": ("population.7.count=3", "'7' is not an entry of a list of 1"),
}
REQUESTS = """
import contextlib, json, sys
from pathlib import Path
from mpi4py import MPI
from pbeauty.cli.main import main
folder = Path(sys.argv[1])
for name, arguments in json.loads((folder / "requests.json").read_text()).items():
    here = folder / name / str(MPI.COMM_WORLD.rank)
    here.mkdir(parents=True)
    with open(here / "out", "w") as out, open(here / "err", "w") as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    (here / "code").write_text(str(code))
"""


def bad_requests(folder):
    """What must be refused, by name: the arguments, and words of the message."""
    (folder / "good.yaml").write_text(SCRIPTED)
    (folder / "file").touch()
    found = {
        "no-file": ([folder / "none.yaml"], ["No such file", folder / "none.yaml"]),
        "no-folder": (
            [folder / "good.yaml", "--out", folder / "file/run"],
            [f"cannot create the result folder {folder / 'file/run'}"],
        ),
        "no-results": (
            [folder / "good.yaml", "--set", "results=/proc"],
            ["cannot create the result folder /proc/scripted"],
        ),
        # It exists, and takes no files, not even from root.
        "not-writable": (
            [folder / "good.yaml", "--out", "/proc/self"],
            ["cannot write to the result folder /proc/self"],
        ),
    }
    for name, (override, message) in BAD_OVERRIDES.items():
        found[name] = ([folder / "good.yaml", "--set", override], [message])
    (folder / "no-config").mkdir()
    texts = {
        **BAD_FILES,
        "three-models": (
            THREE_MODELS,
            ["3 models (one, other, third) need a rank each", "at least 4 ranks, not"],
        ),
        "model-missing": (LLM.replace("PATH", f"{folder}/gone"), [f"model path {folder}/gone", "no such folder"]),
        "model-no-config": (
            LLM.replace("PATH", f"{folder}/no-config"),
            [
                f"model path {folder}/no-config: cannot read ",
                "No such file or directory",
            ],
        ),
        "model-a-file": (LLM.replace("PATH", f"{folder}/file"), [f"model path {folder}/file", "Not a directory"]),
        "model-empty-path": (LLM.replace("PATH", "''"), ["models.small.path: "]),
    }
    for name, (text, words) in texts.items():
        (folder / f"{name}.yaml").write_text(text)
        told = [folder / f"{name}.yaml"] if name in BAD_FILES else []
        found[name] = ([folder / f"{name}.yaml", "--out", folder / f"run-{name}"], [*words, *told])
    return found


@pytest.mark.parametrize("ranks", RANKS)
def test_a_bad_request_is_refused(ranks, tmp_path):
    """Many in one job: exit code 2 on all ranks, one message that holds each word once, no traceback, no results."""
    (tmp_path / "requests").mkdir()
    requests = bad_requests(tmp_path / "requests")
    arguments = {name: ["run", *map(str, given)] for name, (given, _) in requests.items()}
    (tmp_path / "requests.json").write_text(json.dumps(arguments))
    (tmp_path / "requests.py").write_text(REQUESTS)
    done = mpirun(ranks, tmp_path, program=(*PYTHON, str(tmp_path / "requests.py")))
    assert (done.code, done.out, done.err, done.left) == (0, "", "", [])
    for name, (_, words) in requests.items():
        read = {what: [(tmp_path / name / f"{rank}/{what}").read_text() for rank in range(ranks)] for what in STREAMS}
        assert read["code"] == ["2"] * ranks, name
        assert read["out"] == [""] * ranks, name
        told, *others = read["err"]
        assert others == [""] * (ranks - 1), f"{name}: told more than once"
        assert told.startswith("pbeauty: ") and told.count("pbeauty: ") == 1 and "Traceback" not in told, told
        for word in words:
            assert told.count(str(word)) == 1, f"{name}: {word!r} in:\n{told}"
        assert name not in BAD_FILES or not (tmp_path / f"requests/run-{name}").exists()


@pytest.mark.parametrize("ranks", RANKS)
def test_a_bad_request_ends_the_job(ranks, tmp_path):
    text, words = BAD_FILES["two-faults"]
    config = write(tmp_path, text)
    refuse(ranks, [config, "--out", tmp_path / "run"], *words, config)
    assert not (tmp_path / "run").exists()


def test_unknown_arguments_are_refused_without_a_hang(tmp_path):
    done = mpirun(3, "run", write(tmp_path, SCRIPTED), "--frobnicate")
    assert done.code == 2
    assert done.left == []
    assert "Traceback" not in done.err


@pytest.mark.parametrize("ranks", RANKS)
def test_more_gpus_than_there_are_is_refused(ranks, tmp_path):
    config = write(tmp_path, LLM.replace("PATH", "demo, tensor_parallel_size: 2"))
    done = refuse(
        ranks,
        [config, "--out", tmp_path / "run"],
        "tensor_parallel_size 2 need",
        header=True,
        environ={"CUDA_VISIBLE_DEVICES": ""},
    )
    assert f"need {2 * max(1, ranks - 1)} GPUs, but 0 are visible" in done.err


def test_a_finished_run_is_not_overwritten(tmp_path):
    arguments = [write(tmp_path, SCRIPTED), "--out", tmp_path / "run"]
    assert mpirun(1, "run", *arguments).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for ranks in RANKS:
        refuse(ranks, arguments, f"{tmp_path / 'run'} holds a finished run; another --out starts anew")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_launcher_that_the_library_does_not_know_is_refused(tmp_path):
    done = alone("run", write(tmp_path, SCRIPTED), "--out", tmp_path / "run", environ={"WORLD_SIZE": "3"})
    assert (done.code, done.out) == (2, "")
    assert "torchrun, or a launcher like it, started 3 tasks, but MPI sees only this one" in done.err
    assert "(or unset WORLD_SIZE, if this process is alone)" in done.err
    assert done.err.count("pbeauty: ") == 1
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, "started 3 tasks"),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, "Open MPI's mpirun started 3 tasks"),
        ({"SLURM_STEP_NUM_TASKS": "3"}, "srun started 3 tasks"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "torchrun, or a launcher like it, started 2 tasks"),
        ({"PMIX_RANK": "1"}, "a launcher with PMIx started at least 2 tasks"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, "MVAPICH's launcher started 2 tasks"),
        ({"JSM_NAMESPACE_SIZE": "2"}, "jsrun started 2 tasks"),
        ({"PALS_RANKID": "5"}, "PALS started at least 6 tasks"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_several_tasks_of_one_rank_each_are_noticed(environ, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_world_size(1, environ)
    check_world_size(2, environ)


@pytest.mark.parametrize(
    "environ", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"PMIX_RANK": "0"}, {"SLURM_NTASKS": "8"}, {"PMI_SIZE": "x"}]
)
def test_a_process_that_is_alone_is_not_refused(environ):
    check_world_size(1, environ)


@pytest.mark.parametrize("words", [["check", "CONFIG"], ["prompts"], ["run", "CONFIG", "--out", "RUN"]])
def test_output_that_cannot_be_written_is_said_in_a_line_and_ends_no_run(words, tmp_path):
    config = write(tmp_path, SCRIPTED.replace("rounds: 4", "rounds: 2"))
    for number, where in enumerate(("> /dev/full", ">&-")):
        named = {"CONFIG": str(config), "RUN": str(tmp_path / f"run-{number}")}
        command = shlex.join([*map(str, PBEAUTY), *(named.get(word, word) for word in words)])
        done = subprocess.run(f"{command} {where}", shell=True, text=True, capture_output=True, timeout=LIMIT)
        assert "Traceback" not in done.stderr, done
        if words[0] == "run":
            with Run(tmp_path / f"run-{number}") as run:
                assert (done.returncode, run.finished) == (0, True)
        elif where == ">&-":
            assert (done.returncode, done.stderr) == (0, "")
        else:
            assert (done.returncode, done.stderr) == (1, "pbeauty: standard output: No space left on device\n")


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path):
    """Wherever it comes: here while experiments are read."""
    code = "import os, signal, sys; from pbeauty.config import sweep; from pbeauty.cli.main import main\n"
    # Whoever runs the tests in the background lets them ignore Ctrl-C.
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "sweep.parse = lambda *_: os.kill(os.getpid(), signal.SIGINT)\nsys.exit(main())"
    command = [sys.executable, "-c", code, "check", write(tmp_path, SCRIPTED)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["prompts"],
        ["check", "CONFIG"],
        ["run", "CONFIG", "--out", "RUN", "--set", "plots=false"],
        ["watch", "DONE"],
        ["analyze", "DONE"],
        ["export", "DONE", "--format", "csv", "--out", "OUT"],
        ["report", "DONE", "--out", "PAGE"],
    ],
)
def test_a_closed_pipe_is_no_error(arguments, stream, tmp_path):
    """As `| head`: nobody reads any more. A run goes on to its end."""
    config, done = write(tmp_path, SCRIPTED.replace("rounds: 4", "rounds: 2, offset: 1")), tmp_path / "done"
    if "DONE" in arguments:
        make(done, np.full((2, 4), 20.0))
    named = {
        "CONFIG": config,
        "RUN": tmp_path / "run",
        "DONE": done,
        "OUT": tmp_path / "out",
        "PAGE": tmp_path / "page.html",
    }
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    try:
        process = subprocess.Popen(
            [*PBEAUTY, *(str(named.get(word, word)) for word in arguments)],
            text=True,
            **{stream: writer, other: subprocess.PIPE},
        )
    finally:
        os.close(writer)
    shown = "".join(text or "" for text in process.communicate(timeout=LIMIT))
    assert process.returncode == 0
    assert "Traceback" not in shown and "BrokenPipe" not in shown
    if "run" in arguments:
        with Run(tmp_path / "run") as run:
            assert run.complete


@pytest.mark.parametrize("command", ["prompts", "analyze RUN", "watch RUN", "run CONFIG --out NEW --set plots=false"])
def test_streams_that_were_closed_beforehand_are_no_error(command, tmp_path):
    make(tmp_path / "RUN", np.full((2, 4), 20.0))
    write(tmp_path, SCRIPTED).rename(tmp_path / "CONFIG")
    words = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *PBEAUTY, *command.split()]
    assert subprocess.run(words, cwd=tmp_path, check=False, timeout=LIMIT).returncode == 0
    if "run" in command:
        with Run(tmp_path / "NEW") as run:
            assert run.complete


def test_a_job_that_cannot_be_measured_says_why():
    command = [sys.executable, "results/measured/measure.py", "--ranks", "1", "nope.yaml"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 1
    assert done.stderr == "nope.yaml on 1 rank(s): pbeauty: cannot read nope.yaml: No such file or directory\n"


def test_a_terminal_without_unicode_is_no_error(tmp_path):
    config = write(tmp_path, SCRIPTED)
    done = alone("run", config, "--out", tmp_path / "\u732e", environ={"PYTHONIOENCODING": "ascii"})
    assert (done.code, done.left) == (0, []), done
    assert "results: " in done.out and "\\u732e" in done.out


def test_no_mpi_library_is_told(tmp_path):
    config = write(tmp_path, SCRIPTED)
    done = alone("run", config, environ={"MPI4PY_LIBMPI": "/nonexistent/libmpi.so", "LD_LIBRARY_PATH": ""})
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("pbeauty: no MPI library could be loaded")
    assert "Traceback" not in done.err


def test_plot_refuses_what_is_no_run(tmp_path):
    (tmp_path / "run.h5").write_text("something else")
    for path in (tmp_path, tmp_path / "none"):
        done = alone("plot", path)
        assert (done.code, done.out) == (2, ""), done
        assert done.err.startswith("pbeauty: ")
        assert "Traceback" not in done.err


# --- errors while running --------------------------------------------------------------------------------------

FAULT = """
import os, signal
from pbeauty.game import theory
from mpi4py import MPI
played = theory.guess
def guess(experiment, group, announcement, ids):
    if announcement.round_index == 1 and MPI.COMM_WORLD.rank == {rank}:
        {fault}
    return played(experiment, group, announcement, ids)
theory.guess = guess
"""
NOBODY = """
from pbeauty.game.records import Status
from pbeauty.job.participants import Participants
played = Participants.answer
def play(self, announcement, *arguments, **options):
    play = played(self, announcement, *arguments, **options)
    if announcement.round_index == {round_index}:
        play.rows["guess"][:], play.rows["status"][:] = float("nan"), Status.UNPARSABLE
    return play
Participants.answer = play
"""
LIMITED = """
import resource
from pbeauty.job.moderator import Moderator
announced = Moderator.announce
def announce(self):
    if self.rounds == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return announced(self)
Moderator.announce = announce
"""
"""After three rounds no file can grow to the size of a round of 20,000."""


@pytest.mark.parametrize(("ranks", "number"), [(1, 1), (3, 3)])
def test_a_round_without_a_valid_guess_ends_the_run_and_keeps_the_rounds_before(ranks, number, tmp_path):
    arguments = ["run", write(tmp_path, SCRIPTED), "--set", "plots=true", "--out", tmp_path / "run"]
    done = mpirun(ranks, *arguments, program=altered(tmp_path, NOBODY.format(round_index=number - 1)))
    assert (done.code, done.left) == (1, []), done
    message = f"round {number}: no participant gave a valid guess, so the round has no target (50 unparsable)"
    assert f"pbeauty: {message}; its replies are kept in replies/000{number}, and so are the rounds before" in done.err
    assert "Traceback" not in done.err
    assert done.out.splitlines()[-1] == f"results: {tmp_path / 'run'}"
    assert rounds_kept(tmp_path / "run") == number - 1
    assert len(list((tmp_path / "run").glob("plots/round-*.pdf"))) == number - 1


@pytest.mark.parametrize(("ranks", "rank"), [(1, 0), (4, 1), (4, 2)])
def test_an_uncaught_error_on_one_rank_ends_the_job_with_its_traceback(ranks, rank, tmp_path):
    broken = altered(tmp_path, FAULT.format(rank=rank, fault="raise ZeroDivisionError('out of luck')"))
    done = mpirun(ranks, "run", write(tmp_path, SCRIPTED), "--out", tmp_path / "run", program=broken)
    assert done.code not in (0, 2, 75)
    assert done.left == []
    assert done.err.count("Traceback (most recent call last)") == 1, done.err
    assert done.err.count("ZeroDivisionError: out of luck") == 1
    assert done.err.count(f"pbeauty: rank {rank} of {ranks}: out of luck") == 1
    assert rounds_kept(tmp_path / "run") == 1


@pytest.mark.parametrize(
    ("fault", "name"),
    [("sys.exit(0)", "0"), ("raise KeyboardInterrupt", "KeyboardInterrupt"), ("raise MemoryError", "MemoryError")],
)
def test_no_way_out_of_a_rank_leaves_the_others_waiting(fault, name, tmp_path):
    broken = altered(tmp_path, FAULT.format(rank=2, fault=fault))
    done = mpirun(3, "run", write(tmp_path, SCRIPTED), "--out", tmp_path / "run", program=broken)
    assert done.code != 0
    assert done.left == []
    assert f"pbeauty: rank 2 of 3: {name}\n" in done.err
    assert rounds_kept(tmp_path / "run") == 1


@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_ends_the_job_and_the_finished_rounds_can_be_read(rank, tmp_path):
    with start(3, "run", write(tmp_path, ENDLESS), "--out", tmp_path / "run") as job:
        job.wait_for(lambda: (tmp_path / "run/run.h5").exists() and rounds_kept(tmp_path / "run") >= 2)
        os.kill(job.ranks()[rank], signal.SIGKILL)
        done = job.end()
    assert done.code != 0
    assert done.left == []
    assert rounds_kept(tmp_path / "run") >= 2


def test_a_file_that_cannot_be_written_ends_the_job_and_keeps_the_rounds_before(tmp_path):
    """However HDF5 takes it that a file can grow no more: the file of the rounds before is untouched."""
    limited = altered(tmp_path, LIMITED)
    config = write(tmp_path, SCRIPTED.replace("count: 50", "count: 20000").replace("rounds: 4", "rounds: 6"))
    done = mpirun(3, "run", config, "--out", tmp_path / "run", program=limited)
    assert done.code not in (0, 2, 75)
    assert done.left == []
    assert rounds_kept(tmp_path / "run") == 3
    assert done.out.count(" none\n") == 3
    assert not np.isnan(results(tmp_path / "run")["rounds/guess"]).any()


# --- interruptions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_to_the_launcher_ends_the_run_cleanly(number, ranks, tmp_path):
    figures = ["--set", "plots=true"] if number == signal.SIGTERM else []
    arguments = ["run", write(tmp_path, ENDLESS), *figures, "--out", tmp_path / "run"]
    with start(ranks, *arguments) as job:
        job.wait_for(lambda: (tmp_path / "run/run.h5").exists() and rounds_kept(tmp_path / "run") >= 2)
        job.send(number)
        done = job.end()
    kept = rounds_kept(tmp_path / "run")
    assert done.code != 0, "an interrupted run must not look like a finished one"
    assert done.left == []
    assert "Traceback" not in done.err
    assert f"pbeauty: stopped by {number.name} after {kept} finished round(s)" in done.err
    assert done.table[-1] == f"results: {tmp_path / 'run'}"
    assert kept == len(done.table) - 2, "the table and the file tell different rounds"
    assert not (tmp_path / "run/plots").exists(), "time that a job at its limit may not have"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_long_round_is_broken_off(number, tmp_path):
    """A signal does not wait for the round's end, and the round that it breaks off leaves nothing behind."""
    config = write(tmp_path, ENDLESS.replace("think_time: 0.3", "think_time: 3600"))
    with start(3, "run", config, "--out", tmp_path / "run") as job:
        job.wait_for((tmp_path / "run/run.h5").exists)
        job.send(number)
        done = job.end()
    assert done.left == []
    assert f"stopped by {number.name} after 0 finished round(s)" in done.err
    assert rounds_kept(tmp_path / "run") == 0


def test_a_signal_to_a_run_without_a_launcher_gives_exit_code_75(tmp_path):
    with Job([*PBEAUTY, "run", write(tmp_path, ENDLESS), "--out", tmp_path / "run"], {}) as job:
        job.wait_for(lambda: (tmp_path / "run/run.h5").exists() and rounds_kept(tmp_path / "run") >= 1)
        job.send(signal.SIGTERM)
        done = job.end()
    assert (done.code, done.left) == (75, [])
    assert f"stopped by SIGTERM after {rounds_kept(tmp_path / 'run')} finished round(s)" in done.err


# --- engines that do not start ---------------------------------------------------------------------------------


BROKEN = """
import pbeauty.job.runner
def load(*arguments):
    raise RuntimeError("out of memory")
pbeauty.job.runner.Engine = load
"""


def test_engines_that_do_not_start_end_every_rank_and_are_told_once(tmp_path):
    config = write(tmp_path, LLM.replace("PATH", "demo"))
    done = mpirun(4, "run", config, "--out", tmp_path / "run", program=altered(tmp_path, BROKEN))
    assert (done.code, done.left) == (1, []), done
    assert done.err.count("Traceback") == 1, done.err
    reason = r"pbeauty: rank 1 on \S+, rank 2 on \S+, rank 3 on \S+: RuntimeError: out of memory"
    assert re.fullmatch(reason, done.err.rstrip().splitlines()[-1]), done.err


@pytest.mark.parametrize("name", ["cases.csv", "live.json"])
def test_a_table_or_status_of_a_sweep_that_cannot_be_written_is_one_message(name, tmp_path):
    write(tmp_path, SCRIPTED)
    (tmp_path / "sweep.yaml").write_text("base: experiment.yaml\nvary: {game.multiplier: [0.5, 0.7]}")
    (tmp_path / "run" / name).mkdir(parents=True)
    done = alone("run", tmp_path / "sweep.yaml", "--out", tmp_path / "run")
    assert done.code == 1
    assert f"cannot write {tmp_path / 'run' / name}: Is a directory" in done.err
    assert "Traceback" not in done.err
