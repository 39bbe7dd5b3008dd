"""The simulated communicator against real MPI, and whole games on up to 1,024 of its ranks.

`mpirun -n 5 python tests/test_simulated.py FOLDER` does on real ranks what the simulation is compared with.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import h5py
import mpi
import numpy as np
import pytest
import simulated
from mpi4py import MPI

from pbeauty.config.loader import loads
from pbeauty.game.records import Announcement
from pbeauty.job.display import Display
from pbeauty.job.moderator import Moderator, play_game
from pbeauty.job.participants import Participants
from pbeauty.mpi.collectives import idle_barrier, node_rank
from pbeauty.mpi.monitor import ProgressReporter, monitor_ranks
from pbeauty.mpi.partition import partition_population
from pbeauty.storage.run_writer import RunWriter

MIXED = """
name: mixed
seed: 41
gather_limit: {limit}
game: {{multiplier: 0.7, offset: 3, low: 5, high: 105, aggregate: {aggregate}, rounds: {rounds},
  announce: [{announce}]{more}}}
population:
  - {{name: drawn, count: {drawn}, kind: uniform}}
  - {{name: whole, count: {whole}, kind: uniform, integers: true}}
  - {{name: stubborn, count: 1, kind: fixed, value: 12.5}}
  - {{name: second, count: 3, kind: level_k, level: 2}}
  - {{name: hierarchy, count: {hierarchy}, kind: cognitive_hierarchy, tau: 1.5}}
"""
ALL_TOLD = "target, mean, median, winning_guess, group_numbers, own_rank"
GAMES = {
    "mean": {},
    "median": {"aggregate": "median", "announce": "median, winning_guess"},
    "few": {"drawn": 1, "whole": 1, "hierarchy": 1},
    "groups": {"more": ", players: groups", "announce": ALL_TOLD, "aggregate": "median"},
    "own rank": {"announce": "own_rank, target"},
    "tolerance": {"more": ", tolerance: 4", "announce": "winning_guess"},
    "by block": {"limit": 0, "announce": "target, mean, median, winning_guess, group_numbers"},
}
MANY = {"drawn": 1000, "whole": 613, "hierarchy": 1387}


def described(drawn=7, whole=13, hierarchy=36, aggregate="mean", announce="target", more="", limit=10**6, rounds=3):
    return MIXED.format_map(locals())


def game(**settings):
    return loads(described(**settings))


def play(ranks, experiment, folder, **options):
    """Plays a whole game on simulated ranks, with results in `folder`."""
    folder.mkdir()
    hosted = partition_population(experiment, ranks)

    def body(comm):
        moderator = None
        if comm.rank == 0:
            nowhere = Path(os.devnull).open("w")  # noqa: SIM115
            display = Display(experiment.game, experiment.count, nowhere, nowhere)
            writer = RunWriter.create(folder, experiment, {})
            moderator = Moderator(experiment, writer, display, interrupt=lambda: False)
        play_game(comm, Participants(experiment, hosted[comm.rank]), hosted, folder, "simulated", moderator)
        return moderator and moderator.finished

    ended = simulated.run(ranks, body, **options)
    assert ended.results[0]
    return ended


def everything(comm):
    """Uses every operation, and gives what came of it in words that JSON has."""
    rank, size = comm.rank, comm.size
    found = {}

    shared = {"from": 0, "list": [1, 2]}
    got = comm.bcast(shared if rank == 0 else None)
    got["list"].append(rank)
    found["bcast"] = [got, shared["list"]]
    found["bcast from 1"] = comm.bcast(rank, root=1)
    found["scatter"] = comm.scatter([[r, r * r] for r in range(size)] if rank == 0 else None)
    found["gather"] = comm.gather({"rank": rank})
    found["gather to 2"] = comm.gather(rank, root=2)
    found["allgather"] = comm.allgather(("a", rank))
    found["allreduce"] = [comm.allreduce(rank + 1), comm.allreduce(rank, MPI.MAX), comm.allreduce(rank, MPI.MIN)]

    for name, op in (("sum", MPI.SUM), ("min", MPI.MIN), ("max", MPI.MAX)):
        for dtype in (np.int64, np.uint64, np.float64, np.uint8):
            mine = (np.arange(4) + 3 * rank).astype(dtype)
            into = np.zeros(4, dtype)
            comm.Allreduce(mine, into, op=op)
            found[f"{name} {into.dtype}"] = into.tolist()
            comm.Allreduce(MPI.IN_PLACE, mine, op=op)
            found[f"{name} {into.dtype} in place"] = mine.tolist()
    table = np.full((2, 3), rank, np.int64)
    summed = np.zeros((2, 3), np.int64) if rank == 1 else None
    comm.Reduce(table, summed, op=MPI.SUM, root=1)
    found["reduce"] = None if summed is None else summed.tolist()
    before = np.zeros(1, np.int64)
    comm.Exscan(np.array([rank + 1]), before, op=MPI.SUM)
    found["exscan"] = before.tolist() if rank else None
    numbers = np.array([rank, -rank], np.float64)
    together = np.empty(2 * size)
    comm.Allgather(numbers, together)
    found["Allgather"] = together.tolist()
    comm.Gather(numbers, together if rank == 0 else None)
    found["Gather"] = together.tolist()
    counts = [r % 3 for r in range(size)]
    part, all_parts = np.full(counts[rank], rank, np.uint8), np.zeros(sum(counts), np.uint8)
    comm.Gatherv(part, [all_parts, counts] if rank == 0 else None)
    found["Gatherv"] = all_parts.tolist()
    comm.Allgatherv(part, [all_parts, counts])
    found["Allgatherv"] = all_parts.tolist()
    comm.Bcast(all_parts, root=size - 1)
    found["Bcast"] = all_parts.tolist()
    dealt = np.empty(size, np.int64)
    comm.Alltoall(np.arange(size) + 100 * rank, dealt)
    found["Alltoall"] = dealt.tolist()
    given = [(rank + r) % 3 for r in range(size)]
    taken = np.zeros(sum(given), np.int32)
    comm.Alltoallv([np.repeat(np.arange(size, dtype=np.int32), given), given], [taken, given])
    found["Alltoallv"] = taken.tolist()

    comm.Barrier()
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(1e-4)
    found["again"] = request.Test()
    if rank == 0:
        status, letters = MPI.Status(), []
        while len(letters) < 2 * (size - 1):
            if comm.Iprobe(source=MPI.ANY_SOURCE, tag=7, status=status):
                message = np.empty(3, np.int64)
                comm.Recv(message, source=status.Get_source(), tag=7)
                letters.append([status.Get_source(), status.Get_tag(), *message.tolist()])
        found["in order from each"] = sorted(letters, key=lambda letter: letter[0])
        for other in range(1, size):
            comm.Send(np.array([other]), dest=other, tag=8)
    else:
        for number in range(2):
            comm.Send(np.array([rank, number, 5]), dest=0, tag=7)
        answer, status = np.empty(2, np.int64), MPI.Status()
        comm.Recv(answer, status=status)
        found["answer"] = [int(answer[0]), status.Get_source(), status.Get_tag()]
    idle_barrier(comm)
    found["place"] = list(vars_of(node_rank(comm, engine=rank > 0)))
    return found


def vars_of(seat):
    return seat.index, seat.count


# --- the simulation itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [3, 5])
def test_every_operation_does_what_real_mpi_does(ranks, tmp_path):
    done = mpi.mpirun(ranks, __file__, tmp_path, program=mpi.PYTHON)
    assert done.code == 0, done
    real = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(ranks)]
    ended = simulated.run(ranks, everything)
    assert json.loads(json.dumps(ended.results)) == real
    assert len(real[0]) > 40


def test_calls_and_bytes_are_counted_by_rank():
    def body(comm):
        comm.Allreduce(np.zeros(5), np.zeros(5))
        comm.Gatherv(np.zeros(comm.rank), [np.zeros(6), range(4)] if comm.rank == 0 else None)
        comm.gather("x" * 1000)
        if comm.rank == 3:
            comm.Send(np.zeros(2, np.int32), dest=0, tag=1)
        if comm.rank == 0:
            comm.Recv(np.zeros(2, np.int32))

    zero, *_, three = simulated.run(4, body).comms
    assert zero.calls == Counter({"Allreduce": 1, "Gatherv": 1, "gather": 1, "Recv": 1})
    assert three.calls == Counter({"Allreduce": 1, "Gatherv": 1, "gather": 1, "Send": 1})
    assert (zero.sent["Gatherv"], zero.received["Gatherv"]) == (0, 48)
    assert (three.sent["Gatherv"], three.received["Gatherv"]) == (24, 0)
    assert zero.sent["Allreduce"] == three.received["Allreduce"] == 40
    assert 1000 < three.sent["gather"] < 1100
    assert zero.received["gather"] == 4 * three.sent["gather"]
    assert (zero.received["Recv"], three.sent["Send"]) == (8, 8)


def test_roots_do_not_wait_for_those_who_need_nothing_from_them():
    passed = threading.Event()

    def body(comm):
        if comm.rank:
            assert passed.wait(30), "rank 0 waits in bcast"
        comm.bcast("told")
        comm.gather(comm.rank, root=1)
        passed.set()

    simulated.run(3, body)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda comm: comm.bcast(1) if comm.rank else comm.gather(1), r"rank 0 in gather\(0\) at .*\.py:\d+; rank"),
        (lambda comm: comm.bcast(1, root=comm.rank % 2), r"bcast\(0\).*bcast\(1\)"),
        (lambda comm: comm.Allreduce(np.zeros(1 + comm.rank), np.zeros(1 + comm.rank)), r"float64, 1, SUM.*64, 2, SUM"),
        (lambda comm: comm.Allreduce(np.zeros(1, "if"[comm.rank > 1]), np.zeros(1, "i")), "int32.*float32"),
        (lambda comm: comm.Allreduce(np.zeros(2), np.zeros(3)), "there are 2 float64, the buffer has 3 float64"),
        (lambda comm: comm.Allreduce(np.zeros(2), np.zeros(2, int)), "2 float64, the buffer has 2 int64"),
        (lambda comm: comm.Allreduce(np.zeros((4, 4))[:, 1], np.zeros(4)), "not contiguous"),
        (lambda comm: comm.Allreduce(np.zeros(1, "i,i"), np.zeros(1, "i,i")), "no buffer of numbers"),
        (lambda comm: comm.Gatherv(np.zeros(2), [np.zeros(7), [2, 3, 2]]), "rank 1 sends 2 float64, .* has 3"),
        (lambda comm: comm.Gatherv(np.zeros(2), [np.zeros(5), [2, 2, 2]]), "6 in all, of 5 values"),
        (lambda comm: comm.Barrier() if comm.rank else None, r"ranks? 1.* in Barrier\(\).*; rank 0 at the end"),
        (lambda comm: comm.rank == 2 and comm.Send(np.zeros(1), dest=1, tag=4), "1 message.* rank 2 with tag 4"),
        (lambda comm: comm.rank == 2 and comm.Recv(np.zeros(1), source=1, tag=9), r"rank 2 in Recv\(source=1, tag=9\)"),
        (lambda comm: comm.Abort(7) if comm.rank == 1 else comm.Barrier(), "rank 1 aborted the job with code 7"),
        (lambda comm: idle_barrier(comm) if comm.rank else time.sleep(3), r"nothing .* 0.5 s: rank 0 in code at .*\.py"),  # noqa: E501
    ],
)  # fmt: skip
def test_ranks_that_do_not_fit_together_end_with_an_error_that_says_so(call, message):
    with pytest.raises(simulated.MPIError, match=message):
        simulated.run(3, call, patience=0.5)


def test_ranks_that_wait_for_each_other_end_with_a_report_of_who_waits_where():
    def body(comm):
        if comm.rank < 2:
            comm.Recv(np.zeros(1), source=1 - comm.rank)
        comm.Barrier()

    with pytest.raises(simulated.MPIError) as error:
        simulated.run(5, body, patience=0.5)
    assert "nothing has happened for 0.5 s" in str(error.value)
    assert "ranks 2-4 in Barrier at test_simulated.py:" in str(error.value)
    assert "rank 0 in Recv(source=1, tag=-" in str(error.value)


def test_an_error_on_one_rank_ends_all_of_them_and_is_that_error():
    ended = []

    def body(comm):
        if comm.rank == 2:
            raise ZeroDivisionError("out of luck")
        try:
            comm.Barrier()
        except Exception:
            ended.append(comm.rank)
            raise

    with pytest.raises(ZeroDivisionError, match="out of luck") as error:
        simulated.run(4, body)
    assert error.value.__notes__ == ["on simulated rank 2 of 4"]
    assert not ended, "ranks that wait must not take another's end for an error of theirs"


def test_sums_come_in_another_order_each_time():
    """Floating point tells the order; what is exact in any order, as integers are, is not changed by it."""
    values = [1e16, 1.0, -1e16, 1.0, 3.0, -2.0, 1e-8, 7.0]

    def body(comm):
        sums = []
        for _ in range(20):
            into = np.zeros(1)
            comm.Allreduce(np.array(values[comm.rank : comm.rank + 1]), into)
            sums.append(float(into[0]))
        return sums

    sums, *others = simulated.run(8, body).results
    assert all(other == sums for other in others), "ranks disagree"
    assert len(set(sums)) > 1


# --- games -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GAMES)
def test_results_are_the_same_to_the_bit_on_simulated_ranks(name, tmp_path):
    experiment = game(**GAMES[name])
    play(1, experiment.model_copy(update={"gather_limit": 10**6}), tmp_path / "1")
    alone = mpi.results(tmp_path / "1")
    assert alone["rounds/guess"].shape == (3, experiment.count)
    for ranks in (2, 3, 7, 64):  # 60 participants, or 7: some ranks have more than others, some nobody
        play(ranks, experiment, tmp_path / str(ranks))
        mpi.assert_same(mpi.results(tmp_path / str(ranks)), alone)
    assert attributes(tmp_path / "1") == attributes(tmp_path / "64")


@pytest.mark.parametrize("name", GAMES)
def test_results_are_the_same_to_the_bit_on_257_ranks(name, tmp_path):
    experiment = game(**({} if name == "few" else MANY) | GAMES[name])
    play(1, experiment.model_copy(update={"gather_limit": 10**6}), tmp_path / "1")
    play(257, experiment, tmp_path / "257")
    mpi.assert_same(mpi.results(tmp_path / "257"), mpi.results(tmp_path / "1"))


@pytest.mark.parametrize("name", ["mean", "by block"])
def test_more_ranks_make_no_more_collectives(name, tmp_path):
    """So that a round's cost can grow with the logarithm of ranks, which is what a collective takes."""
    experiment = game(**MANY | GAMES[name])
    looking = {"Iprobe", "Send", "Recv", "Test"}  # a message of each rank a round, and looks for them
    calls, received = [], []
    for ranks in (5, 17, 129):
        ended = play(ranks, experiment, tmp_path / str(ranks))
        of_each = [Counter({n: c for n, c in comm.calls.items() if n not in looking}) for comm in ended.comms]
        assert all(one == of_each[0] for one in of_each), "ranks differ in what they call"
        calls.append(of_each[0])
        gathered = sum(ended.comms[0].received.values()) - ended.comms[0].received["Recv"]
        received.append(gathered)
    assert calls[0] == calls[1] == calls[2]
    more_ranks, many_more = received[1] - received[0], received[2] - received[1]
    assert many_more < 1000 * 3 * (129 - 17) and more_ranks < 1000 * 3 * (17 - 5), "some bytes of each rank a round"


def test_a_round_that_is_broken_off_ends_on_every_rank(tmp_path):
    """Everybody thinks for a minute; the moderator is interrupted once all have reported."""
    experiment = loads("name: t\ngame: {rounds: 2}\npopulation: [{name: u, count: 99, kind: uniform, think_time: 60}]")
    hosted = partition_population(experiment, 40)
    heard = {}

    def body(comm):
        block = Participants(experiment, hosted[comm.rank])
        if comm.rank:
            reporter = ProgressReporter(comm)
            played = block.play(Announcement(0, {}), reporter.tick)
            reporter.finish(played.progress)
            return played.complete
        totals = lambda: sum(progress.total for progress in heard.values())  # noqa: E731
        monitor_ranks(comm, heard.update, lambda: totals() == 99, patience=600)
        return None

    assert simulated.run(40, body).results[1:] == [False] * 39


def attributes(folder):
    with h5py.File(folder / "run.h5") as file:
        found = {}
        file.visititems(lambda name, item: found.update({name: {k: str(v) for k, v in item.attrs.items()}}))
        return found


if __name__ == "__main__":
    found = everything(MPI.COMM_WORLD)
    (Path(sys.argv[1]) / str(MPI.COMM_WORLD.rank)).write_text(json.dumps(found))
