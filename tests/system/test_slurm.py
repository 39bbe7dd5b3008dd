"""`slurm/run.sbatch` and `slurm/array.sbatch` themselves, submitted to a real Slurm of two nodes with pretend GPUs."""

import json
import os
import shlex
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import h5py
import pytest
import yaml
from hosts import virtual
from mpi import BIN, alone, assert_same, results, rounds_kept
from slurm.cluster import PROGRAMS, Cluster

SCRIPTS = Path(__file__).parents[2] / "slurm"
PROBE = f"{sys.executable} {Path(__file__).parents[1] / 'support/slurm/probe.py'}"
PARROT = f"{sys.executable} {Path(__file__).parents[1] / 'support/parrot.py'}"
THINKER = f"{sys.executable} {Path(__file__).parents[1] / 'support/thinker.py'}"
THINKERS = """
name: thinkers
seed: 11
game: {rounds: 6}
population:
  - {name: crowd, count: 40, kind: uniform, think_time: 0.6}
  - {name: hierarchy, count: 30, kind: cognitive_hierarchy, tau: 1.5}
"""
BIRDS = """
name: birds
seed: 3
game: {rounds: 2}
models: {small: {path: demo}}
population: [{name: birds, count: 40, kind: llm, model: small}]
"""
WITHOUT_GPUS = ("--gpus-per-node=0", "--cpus-per-task=2")


@pytest.fixture(scope="module")
def cluster():
    virtual.require("the Slurm tests", PROGRAMS)
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path):
    return checkout(tmp_path)


def held(round_number):
    """The environment of a job that stays in a round until Slurm has started it again."""
    return {"PBEAUTY": THINKER, "THINK_FROM": str(round_number)}


def checkout(folder):
    """A folder to submit from."""
    shutil.copytree(SCRIPTS, folder / "slurm")
    (folder / "thinkers.yaml").write_text(THINKERS)
    (folder / "birds.yaml").write_text(BIRDS)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the thinkers come to on one rank without a pause."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "thinkers.yaml").write_text(THINKERS.replace("think_time: 0.6", "think_time: 0"))
    done = alone("run", folder / "thinkers.yaml", "--out", folder / "run")
    assert done.code == 0, done
    return results(folder / "run")


class Submitted:
    """A job of one experiment."""

    def __init__(self, cluster, folder, *arguments, **environ):
        self._cluster, self._folder = cluster, folder
        self.id = cluster.submit(*arguments, folder=folder, environ=environ)
        stem = next(Path(argument).stem for argument in arguments if str(argument).endswith(".yaml"))
        self.run = folder / f"results/{stem}/slurm-{self.id}"

    @property
    def log(self):
        path = self._folder / f"pbeauty-{self.id}.out"
        return path.read_text() if path.exists() else ""

    def wait_for_rounds(self, count):
        ready = lambda: (self.run / "run.h5").exists() and rounds_kept(self.run) >= count  # noqa: E731
        self._cluster.wait_until(ready, f"round {count} of job {self.id}")

    def wait_for_restart(self):
        self._cluster.wait_until(
            lambda: self._cluster.job(self.id)["Restarts"] == "1", f"restart of job {self.id}: {self.log}"
        )

    def end(self, state, code):
        """Waits for the job's end, which must be this one."""
        seen = self._cluster.wait_for(self.id)
        assert (seen["JobState"], seen["ExitCode"]) == (state, f"{code}:0"), self.log
        return seen

    def said(self):
        """What the batch script itself said, without the time."""
        lines = [line for line in self.log.splitlines() if line.startswith("run.sbatch: ")]
        return [line.partition(f" job {self.id}: ")[2] for line in lines]

    def provenance(self):
        with h5py.File(self.run / "run.h5") as file:
            return json.loads(file.attrs["provenance"])


@pytest.fixture(scope="module", autouse=True)
def long_jobs(cluster, tmp_path_factory):
    """Jobs that take long, submitted first and looked at last: they run beside the others, on the first node."""
    folder = checkout(tmp_path_factory.mktemp("long"))
    here = (*WITHOUT_GPUS, "--nodelist=n1", "slurm/run.sbatch")
    # Slurm warns when it gets round to it: 55 s before a limit of 60 s is at the next look, within half a minute.
    limits = ("--time=1", "--signal=B:USR1@55")
    return {
        "limited": Submitted(cluster, folder, *limits, *here, "thinkers.yaml", "--set", "population.0.think_time=6"),
        "talking": Submitted(cluster, folder, *here, "birds.yaml", "--set", "population.0.count=8"),
    }


# --- where ranks are placed, and what they see -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("launch", "nodes", "gpus", "per_engine"),
    [("srun", 2, 2, 1), ("srun", 1, 4, 2), ("mpirun", 2, 2, 1)],
)
def test_an_engine_per_gpu_and_a_moderator_without(launch, nodes, gpus, per_engine, cluster, folder):
    job = Submitted(
        cluster,
        folder,
        f"--nodes={nodes}",
        f"--gpus-per-node={gpus}",
        "--cpus-per-task=4",
        "slurm/run.sbatch",
        "birds.yaml",
        "--set",
        f"models.small.tensor_parallel_size={per_engine}",
        PBEAUTY=PROBE,
        LAUNCH=launch,
    )
    job.end("COMPLETED", 0)
    provenance = job.provenance()
    moderator, *engines = provenance["ranks"]
    assert provenance["slurm_job_id"] == job.id
    assert (moderator["host"], moderator["participants"]) == ("n1", 0)
    assert "gpus" not in moderator
    per_node = gpus // per_engine
    assert Counter(rank["host"] for rank in engines) == dict.fromkeys(["n1", "n2"][:nodes], per_node)
    expected = [[str(per_engine * i + j) for j in range(per_engine)] for i in range(per_node)]
    for node in ["n1", "n2"][:nodes]:
        assert [rank["gpus"] for rank in engines if rank["host"] == node] == expected
    assert job.said() == [
        f"{nodes * per_node + 1} ranks on {nodes} node(s), {per_node} engine(s) a node and the moderator, {gpus} GPU(s)"
        f" a node, start 1, results in results/birds/slurm-{job.id}",
        f"finished, results in results/birds/slurm-{job.id}",
    ]


def test_backgrounds_are_written_by_a_job_of_their_own_on_engines_of_the_writers_size(cluster, folder):
    birds = yaml.safe_load(BIRDS)
    birds["models"]["strong"] = {"path": "demo", "tensor_parallel_size": 2}
    personas = {"attributes": {"job": ["cook", "clerk"]}, "write": {"model": "strong", "min_chars": 9}}
    birds["population"][0] |= {"personas": personas, "system_prompt": "background"}
    (folder / "birds.yaml").write_text(yaml.safe_dump(birds))
    options = ("--nodes=2", "--gpus-per-node=2", "--cpus-per-task=3")
    arguments = ("slurm/run.sbatch", "birds.yaml", "--out", "people.jsonl")
    job = Submitted(cluster, folder, *options, *arguments, PBEAUTY_COMMAND="personas", PBEAUTY=PARROT)
    job.end("COMPLETED", 0)
    assert job.said() == [
        "3 ranks on 2 node(s), 1 engine(s) a node and the moderator, 2 GPU(s) a node, start 1, results in people.jsonl",
        "finished, results in people.jsonl",
    ]
    people = [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]
    assert [person["participant"] for person in people] == list(range(40))


def test_a_site_file_sets_the_program_and_the_ranks(cluster, folder):
    """The program here fails to start at first; that is tried once more."""
    (folder / "slurm/site.sh").write_text("no-such-module-command; ENGINES_PER_NODE=1; PBEAUTY='bash flaky.sh'\n")
    (folder / "flaky.sh").write_text('mkdir once 2> /dev/null && exit 15\nexec pbeauty "$@"\n')
    options = ("--gpus-per-node=2", "--cpus-per-task=3")
    arguments = ("thinkers.yaml", "--set", "game.rounds=1", "--out", "here")
    job = Submitted(cluster, folder, *options, "slurm/run.sbatch", *arguments)
    job.end("COMPLETED", 0)
    assert job.said()[1].startswith("the ranks did not get as far as the experiment")
    with h5py.File(folder / "here/run.h5") as file:
        assert json.loads(file.attrs["provenance"])["size"] == 2, "not the 3 that GPUs call for"


def test_what_the_site_file_exports_reaches_ranks_whatever_sbatch_exports(cluster, folder):
    """`sbatch --export=NONE`, the default of some sites, keeps srun from handing on the script's own environment."""
    (folder / "slurm/site.sh").write_text(f"export PATH={BIN}:$PATH ONLY_HERE=yes\nPBEAUTY='bash marked.sh'\n")
    (folder / "marked.sh").write_text('[[ $1 == check || $ONLY_HERE == yes ]] || exit 3\nexec pbeauty "$@"\n')
    arguments = ("--export=NONE", *WITHOUT_GPUS, "slurm/run.sbatch", "thinkers.yaml", "--set", "game.rounds=1")
    job = Submitted(cluster, folder, *arguments)
    job.end("COMPLETED", 0)
    assert job.provenance()["size"] == 2


# --- interruptions -----------------------------------------------------------------------------------------------


def test_a_warned_job_is_requeued_and_goes_on(cluster, folder, uninterrupted):
    arguments = ("--nodes=2", *WITHOUT_GPUS, "slurm/run.sbatch", "thinkers.yaml")
    jobs = [Submitted(cluster, folder, *arguments, LAUNCH=launch, **held(3)) for launch in ("srun", "mpirun")]
    for job in jobs:
        job.wait_for_rounds(2)
        cluster.ask("scancel", "--batch", "--signal=USR1", job.id)  # as --signal=B:USR1 does near the time limit
    for job in jobs:
        job.end("COMPLETED", 0)
        assert job.said()[1] == f"interrupted; requeued, to go on in results/thinkers/slurm-{job.id}"
        assert len(job.said()) == 4
        assert "stopped by SIGUSR1" in job.log
        assert "going on after round" in job.log
        assert_same(results(job.run), uninterrupted)
        assert len(job.provenance()["earlier_jobs"]) == 1


def test_restarts_are_bounded(cluster, folder):
    experiment = ("thinkers.yaml", "--set", "game={rounds: 6}")
    job = Submitted(cluster, folder, *WITHOUT_GPUS, "slurm/run.sbatch", *experiment, MAX_RESTARTS="0", **held(2))
    job.wait_for_rounds(1)
    cluster.ask("scancel", "--batch", "--signal=USR1", job.id)
    seen = job.end("FAILED", 75)
    assert seen["Restarts"] == "0"
    again = shlex.split(job.said()[-1].partition("which is MAX_RESTARTS; go on with: ")[2])
    assert again == ["sbatch", "slurm/run.sbatch", *experiment, "--out", f"results/thinkers/slurm-{job.id}"]


def test_a_cancelled_job_ends_soon_and_another_job_goes_on(cluster, folder, uninterrupted):
    job = Submitted(cluster, folder, "--nodes=2", *WITHOUT_GPUS, "slurm/run.sbatch", "thinkers.yaml", **held(3))
    job.wait_for_rounds(2)
    cluster.ask("scancel", job.id)
    seen = cluster.wait_for(job.id)
    assert seen["JobState"] == "CANCELLED"
    assert rounds_kept(job.run) == 2
    *_, last = job.said()
    command = f"sbatch slurm/run.sbatch thinkers.yaml --out results/thinkers/slurm-{job.id}"
    assert last.endswith(f"go on with: {command}")
    again = Submitted(cluster, folder, *WITHOUT_GPUS, *command.split()[1:])
    again.end("COMPLETED", 0)
    assert_same(results(job.run), uninterrupted)
    assert not again.run.exists()


def test_a_node_that_fails_costs_nothing_but_time(cluster, folder, uninterrupted):
    """Its power is cut in the middle of a round; Slurm notices, and starts the job again once there are two nodes."""
    job = Submitted(cluster, folder, "--nodes=2", *WITHOUT_GPUS, "slurm/run.sbatch", "thinkers.yaml", **held(3))
    job.wait_for_rounds(2)
    cluster.lose("n2")
    try:
        job.wait_for_restart()
    finally:
        cluster.bring_back("n2")
    job.end("COMPLETED", 0)
    assert "going on after round" in job.log
    assert_same(results(job.run), uninterrupted)


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_rank_that_is_killed_fails_the_job(cluster, folder):
    job = Submitted(cluster, folder, "--nodes=2", *WITHOUT_GPUS, "slurm/run.sbatch", "thinkers.yaml", **held(2))
    job.wait_for_rounds(1)
    (rank,) = (pid for pid in cluster.hosts["n2"].processes() if b"PMI_RANK=2" in _environ(pid))
    os.kill(rank, signal.SIGKILL)
    seen = cluster.wait_for(job.id)
    assert (seen["JobState"], seen["Restarts"]) == ("FAILED", "0"), job.log
    assert job.said()[-1].startswith("failed with code ")
    assert rounds_kept(job.run) == 1


def test_ranks_that_do_not_know_of_each_other_are_refused(cluster, folder):
    job = Submitted(cluster, folder, *WITHOUT_GPUS, "slurm/run.sbatch", "thinkers.yaml", MPI_TYPE="none")
    job.end("FAILED", 2)
    assert "srun started 2 tasks, but MPI sees only this one" in job.log
    assert job.said()[-1].startswith("failed with code 2")
    assert not job.run.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["thinkers.yaml", "--set", "game.ronds=3"], "game.ronds: unknown key"),
        (["birds.yaml", "--set", "models.small.tensor_parallel_size=8"], "an engine needs 8 GPUs, and this job has 1"),
        (["birds.yaml", "--set", "game.ronds=3"], "birds.yaml cannot be played"),
    ],
)
def test_a_bad_request_is_refused(arguments, message, cluster, folder):
    options = ("--gpus-per-node=1", "--cpus-per-task=4") if "birds.yaml" in arguments else WITHOUT_GPUS
    job = Submitted(cluster, folder, *options, "slurm/run.sbatch", *arguments, PBEAUTY=PROBE)
    job.end("FAILED", 2)
    assert message in job.log
    assert not job.run.exists()


# --- job arrays ----------------------------------------------------------------------------------------------------


def test_a_job_array_plays_a_case_per_line(cluster, folder):
    (folder / "cases.txt").write_text(
        "# two cases\n\nthinkers.yaml --set game.rounds=1 --set seed=1\n"
        "  thinkers.yaml --set 'game={rounds: 1, multiplier: 1/2}' --set seed=2\r\n"
    )
    job = cluster.submit("--array=1-3", *WITHOUT_GPUS, "slurm/array.sbatch", "cases.txt", folder=folder)
    ended = [cluster.wait_for(f"{job}_{task}") for task in (1, 2, 3)]
    logs = [(folder / f"pbeauty-{job}_{task}.out").read_text() for task in (1, 2, 3)]
    assert [seen["ExitCode"] for seen in ended] == ["0:0", "0:0", "2:0"], logs
    assert "cases.txt has no case 3" in logs[2]
    for task, multiplier in ((1, "2/3"), (2, "1/2")):
        with h5py.File(folder / f"results/thinkers/slurm-{job}_{task}/run.h5") as file:
            assert file.attrs["seed"] == task
            assert yaml.safe_load(file.attrs["experiment"].decode())["game"]["multiplier"] == multiplier
            assert file["rounds/guess"].shape == (1, 70)


# --- the long ones -------------------------------------------------------------------------------------------------


def test_language_models_play_on_a_node(cluster, long_jobs):
    job = long_jobs["talking"]
    job.end("COMPLETED", 0)
    assert [rank["participants"] for rank in job.provenance()["ranks"]] == [0, 8]
    assert results(job.run)["rounds/guess"].shape == (2, 8)


def test_the_time_limit_itself_leads_to_a_requeue(cluster, long_jobs, uninterrupted):
    job = long_jobs["limited"]
    job.end("COMPLETED", 0)
    assert "interrupted; requeued" in job.log
    assert_same(results(job.run), uninterrupted)


def _environ(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
