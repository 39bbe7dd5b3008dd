"""An MPI communicator simulated in one process: every rank is a thread, with what pbeauty uses of mpi4py's `Comm`.

    ended = simulated.run(1024, lambda comm: comm.allgather(comm.rank))

It is stricter than MPI, and says more where something is wrong: ranks that call different collectives, or the same one
with roots, types or sizes that do not fit, a message that nobody receives, a collective that not everybody joins, and
ranks that wait for each other for good are errors that name ranks and lines. Like MPI it does not make ranks wait where
no data have to come: the root of a `bcast` goes on at once. Objects are pickled, so that ranks share none; reductions
add up in an order of their own each time, which MPI leaves open. Calls and their bytes are counted, by rank.
"""

from __future__ import annotations

import functools
import itertools
import operator
import pickle
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

_STACK = 1 << 20
"""Bytes of a rank's stack; only what is touched takes memory."""
_LONGEST_TEST = 0.25
"""Seconds that a test which comes too early takes: a thousand threads that ask all the time would do nothing else."""
_LONGEST_LOOK = 0.05
"""Seconds that a repeated look for a message takes, likewise."""
_OPS = (("SUM", MPI.SUM, np.add), ("MIN", MPI.MIN, np.minimum), ("MAX", MPI.MAX, np.maximum))


class MPIError(RuntimeError):
    """What real MPI would end a job with, or hang over, or let pass with wrong data."""


class _Ended(BaseException):
    """Raised in ranks that are waiting when another one has ended the job; no `except Exception` may swallow it."""


@dataclass
class Ended:
    """A job that has come to its end."""

    results: list[Any]
    """What `body` returned, by rank."""
    comms: list[Comm]
    """Each rank's communicator, with its counts."""

    def calls(self, rank: int = 0) -> Counter[str]:
        """How often a rank called what."""
        return self.comms[rank].calls


def run(size: int, body: Callable[[Comm], Any], *, patience: float = 60.0) -> Ended:
    """Runs `body` on every rank of a simulated communicator.

    Args:
        size: ranks.
        body: the program; what it raises on any rank ends all of them, and is raised here.
        patience: seconds without any call of any rank that comes to its end, after which a deadlock is assumed.

    Raises:
        MPIError: where the ranks do not fit together.
    """
    return _World(size, patience).run(body)


class _World:
    """What the ranks share."""

    def __init__(self, size: int, patience: float) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.comms = [Comm(self, rank) for rank in range(size)]
        self.open: dict[int, _Meeting] = {}
        """Collectives that some ranks have not left yet, by number."""
        self.steps = 0
        """Grows while anything happens."""
        self.failure: BaseException | None = None
        self._patience = patience
        self._ended: set[int] = set()

    def run(self, body: Callable[[Comm], Any]) -> Ended:
        results: list[Any] = [None] * self.size

        def live(comm: Comm) -> None:
            try:
                results[comm.rank] = body(comm)
                self._leave(comm.rank)
            except _Ended:
                pass
            except BaseException as error:
                error.add_note(f"on simulated rank {comm.rank} of {self.size}")
                self.fail(error)

        before = threading.stack_size(_STACK)
        try:
            threads = [threading.Thread(target=live, args=(comm,), daemon=True) for comm in self.comms]
            for thread in threads:
                thread.start()
        finally:
            threading.stack_size(before)
        self._watch(threads)
        if self.failure is not None:
            raise self.failure
        self._check_that_nothing_is_left()
        return Ended(results, self.comms)

    def _watch(self, threads: list[threading.Thread]) -> None:
        seen, since = -1, time.monotonic()
        for rank, thread in enumerate(threads):
            while thread.is_alive() and self.failure is None:
                thread.join(0.1)
                if self.steps != seen:
                    seen, since = self.steps, time.monotonic()
                elif time.monotonic() - since > self._patience:
                    where = self._where(range(rank, self.size), threads)
                    self.fail(MPIError(f"nothing has happened for {self._patience:g} s: {where}"))
        deadline = time.monotonic() + 5
        for thread in threads:  # after a failure, whoever is in a call comes back; the others are left behind
            thread.join(max(0.0, deadline - time.monotonic()))

    def _where(self, ranks: Iterable[int], threads: list[threading.Thread]) -> str:
        frames = sys._current_frames()
        places = defaultdict(list)
        for rank in ranks:
            if threads[rank].is_alive():
                frame = frames.get(threads[rank].ident or 0)
                places[self.comms[rank].waits_in, _place(frame)].append(rank)
        return "; ".join(f"{_ranks(who)} in {what or 'code'} at {at}" for (what, at), who in places.items())

    def fail(self, error: BaseException) -> None:
        """Ends the job on all ranks; the first failure counts."""
        with self.lock:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        for meeting in self.open.values():
            meeting.all_there.set()
            meeting.root_there.set()
        for comm in self.comms:
            with comm.mail:
                comm.mail.notify_all()

    def check(self) -> None:
        """Ends the calling rank if the job has failed."""
        if self.failure is not None:
            raise _Ended

    def arrive(self, rank: int, number: int, call: tuple[Any, ...], root: int | None, given: Any) -> _Meeting:
        """Notes that a rank has come to its collective `number`."""
        with self.lock:
            self.check()
            self.steps += 1
            meeting = self.open.setdefault(number, _Meeting(number))
            meeting.arrivals[rank] = (call, _place(sys._getframe()), given)
            first, *_ = next(iter(meeting.arrivals.values()))
            if call != first or self._ended - meeting.arrivals.keys():
                self._fail(MPIError(f"ranks do not call the same: {meeting.told(self._ended)}"))
                raise _Ended
            if rank == root:
                meeting.root_there.set()
            if len(meeting.arrivals) == self.size:
                meeting.all_there.set()
            return meeting

    def depart(self, meeting: _Meeting) -> None:
        """Notes that a rank has left a collective."""
        with self.lock:
            meeting.departures += 1
            if meeting.departures == self.size:
                del self.open[meeting.number]

    def _leave(self, rank: int) -> None:
        with self.lock:
            self.steps += 1
            self._ended.add(rank)
            for meeting in self.open.values():
                if rank not in meeting.arrivals:
                    self._fail(MPIError(f"ranks do not call the same: {meeting.told(self._ended)}"))

    def _check_that_nothing_is_left(self) -> None:
        left = [
            f"rank {comm.rank} has not received {len(comm.letters)} message(s), the first from rank "
            f"{comm.letters[0].source} with tag {comm.letters[0].tag}"
            for comm in self.comms
            if comm.letters
        ]
        if left:
            raise MPIError("; ".join(left))


@dataclass
class _Meeting:
    """One collective."""

    number: int
    arrivals: dict[int, tuple[tuple[Any, ...], str, Any]] = field(default_factory=dict)
    """By rank: the call, its place in the code, what the rank gives."""
    departures: int = 0
    all_there: threading.Event = field(default_factory=threading.Event)
    root_there: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: Any = None

    def given(self, rank: int) -> Any:
        return self.arrivals[rank][2]

    def once(self, size: int, make: Callable[[list[Any]], Any]) -> Any:
        """What `make` makes of everything given, by rank; the first who asks makes it."""
        with self.lock:
            if self.made is None:
                self.made = make([self.given(rank) for rank in range(size)])
            return self.made

    def told(self, ended: set[int]) -> str:
        calls = defaultdict(list)
        for rank, (call, place, _) in self.arrivals.items():
            calls[f"{call[0]}({', '.join(map(str, call[1:]))}) at {place}"].append(rank)
        told = [f"{_ranks(ranks)} in {call}" for call, ranks in calls.items()]
        if absent := sorted(ended - self.arrivals.keys()):
            told.append(f"{_ranks(absent)} at the end of the program")
        return f"collective {self.number}: " + "; ".join(told)


@dataclass
class _Letter:
    source: int
    tag: int
    data: np.ndarray


class Comm:
    """One rank's end of the communicator."""

    def __init__(self, world: _World, rank: int) -> None:
        self.rank, self.size = rank, world.size
        self.calls: Counter[str] = Counter()
        """How often this rank called what; looking and testing apart."""
        self.sent: Counter[str] = Counter()
        """Bytes that this rank handed over, by call."""
        self.received: Counter[str] = Counter()
        """Bytes that it was given."""
        self.waits_in = ""
        self.mail = threading.Condition()
        self.letters: list[_Letter] = []
        self._world = world
        self._joined = 0
        self._looked_in_vain = False

    def Abort(self, errorcode: int = 1) -> None:  # noqa: N802
        """Ends the job."""
        self._world.fail(MPIError(f"rank {self.rank} aborted the job with code {errorcode}"))
        raise _Ended

    # --- collectives of objects ------------------------------------------------------------------------------

    def bcast(self, obj: Any = None, root: int = 0) -> Any:
        mine = self._pickled("bcast", obj) if self.rank == root else None
        meeting = self._join("bcast", root, given=mine, root=root)
        if mine is not None:
            return self._leave(meeting, pickle.loads(mine))  # the root too is given a copy
        return self._leave(meeting, self._unpickled("bcast", meeting.given(root)))

    def scatter(self, sendobj: Sequence[Any] | None = None, root: int = 0) -> Any:
        mine = None
        if self.rank == root:
            if sendobj is None or len(sendobj) != self.size:
                raise MPIError(f"scatter needs {self.size} objects at its root, rank {root}")
            mine = [self._pickled("scatter", obj) for obj in sendobj]
        meeting = self._join("scatter", root, given=mine, root=root)
        return self._leave(meeting, self._unpickled("scatter", meeting.given(root)[self.rank]))

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        meeting = self._join("gather", root, given=self._pickled("gather", sendobj), wait=self.rank == root)
        if self.rank != root:
            return self._leave(meeting, None)
        return self._leave(meeting, [self._unpickled("gather", meeting.given(rank)) for rank in range(self.size)])

    def allgather(self, sendobj: Any) -> list[Any]:
        meeting = self._join("allgather", given=self._pickled("allgather", sendobj), wait=True)
        # Once more as a whole, so that a thousand ranks do not unpickle a thousand objects each.
        whole = meeting.once(self.size, lambda given: pickle.dumps([pickle.loads(part) for part in given]))
        self.received["allgather"] += sum(len(meeting.given(rank)) for rank in range(self.size))
        return self._leave(meeting, pickle.loads(whole))

    def allreduce(self, sendobj: Any, op: MPI.Op = MPI.SUM) -> Any:
        given = self._pickled("allreduce", sendobj)
        meeting = self._join("allreduce", _named(op), given=given, wait=True)
        self.received["allreduce"] += len(given)
        values = [pickle.loads(meeting.given(rank)) for rank in self._order(meeting.number)]
        combine = {"SUM": operator.add, "MIN": min, "MAX": max}[_named(op)]
        return self._leave(meeting, functools.reduce(combine, values))

    # --- collectives of arrays ---------------------------------------------------------------------------------

    def Barrier(self) -> None:  # noqa: N802
        self._leave(self._join("Barrier", wait=True), None)

    def Ibarrier(self) -> Request:  # noqa: N802
        return Request(self, self._join("Ibarrier"))

    def Bcast(self, buf: Any, root: int = 0) -> None:  # noqa: N802
        array = _array(buf)
        given = self._handed("Bcast", array) if self.rank == root else None
        meeting = self._join("Bcast", array.dtype, array.size, root, given=given, root=root)
        if self.rank != root:
            self._fill("Bcast", array, meeting.given(root))
        self._leave(meeting, None)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM) -> None:  # noqa: N802
        into = _array(recvbuf)
        given = self._handed("Allreduce", into if sendbuf is MPI.IN_PLACE else _array(sendbuf))
        meeting = self._join("Allreduce", given.dtype, given.size, _named(op), given=given, wait=True)
        self._fill("Allreduce", into, self._combined(meeting, op))
        self._leave(meeting, None)

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM, root: int = 0) -> None:  # noqa: N802
        at_root = self.rank == root
        given = self._handed("Reduce", _array(recvbuf if sendbuf is MPI.IN_PLACE and at_root else sendbuf))
        meeting = self._join("Reduce", given.dtype, given.size, _named(op), root, given=given, wait=at_root)
        if at_root:
            self._fill("Reduce", _array(recvbuf), self._combined(meeting, op))
        self._leave(meeting, None)

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM) -> None:  # noqa: N802
        into = _array(recvbuf)
        given = self._handed("Exscan", into if sendbuf is MPI.IN_PLACE else _array(sendbuf))
        meeting = self._join("Exscan", given.dtype, given.size, _named(op), given=given, wait=True)
        before = meeting.once(self.size, lambda given: list(itertools.accumulate(given, _ufunc(op))))
        if self.rank:  # what rank 0 gets is undefined
            self._fill("Exscan", into, before[self.rank - 1])
        self._leave(meeting, None)

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:  # noqa: N802
        given = self._handed("Gather", _array(sendbuf))
        meeting = self._join("Gather", given.dtype, given.size, root, given=given, wait=self.rank == root)
        if self.rank == root:
            self._fill("Gather", _array(recvbuf), np.concatenate([meeting.given(rank) for rank in range(self.size)]))
        self._leave(meeting, None)

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:  # noqa: N802
        given = self._handed("Gatherv", _array(sendbuf))
        meeting = self._join("Gatherv", given.dtype, root, given=given, wait=self.rank == root)
        if self.rank == root:
            for rank, part in enumerate(_parts(recvbuf, self.size)):
                self._fill("Gatherv", part, meeting.given(rank), f"rank {rank} sends")
        self._leave(meeting, None)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        given = self._handed("Allgather", _array(sendbuf))
        meeting = self._join("Allgather", given.dtype, given.size, given=given, wait=True)
        self._fill("Allgather", _array(recvbuf), meeting.once(self.size, np.concatenate))
        self._leave(meeting, None)

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        given = self._handed("Allgatherv", _array(sendbuf))
        meeting = self._join("Allgatherv", given.dtype, given=given, wait=True)
        for rank, part in enumerate(_parts(recvbuf, self.size)):
            self._fill("Allgatherv", part, meeting.given(rank), f"rank {rank} sends")
        self._leave(meeting, None)

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        array = _array(sendbuf)
        if array.size % self.size:
            raise MPIError(f"Alltoall of {array.size} values among {self.size} ranks")
        each = array.size // self.size
        self._exchange("Alltoall", [sendbuf, [each] * self.size], [recvbuf, [each] * self.size])

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        self._exchange("Alltoallv", sendbuf, recvbuf)

    def _exchange(self, name: str, sendbuf: Any, recvbuf: Any) -> None:
        given = [self._handed(name, part) for part in _parts(sendbuf, self.size)]
        meeting = self._join(name, given[0].dtype, given=given, wait=True)
        for rank, part in enumerate(_parts(recvbuf, self.size)):
            self._fill(name, part, meeting.given(rank)[self.rank], f"rank {rank} sends")
        self._leave(meeting, None)

    # --- messages ----------------------------------------------------------------------------------------------

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:  # noqa: N802
        self._world.check()
        self._looked_in_vain = False
        letter = _Letter(self.rank, tag, self._handed("Send", _array(buf)))
        self.calls["Send"] += 1
        other = self._world.comms[dest]
        with other.mail:
            other.letters.append(letter)
            other.mail.notify_all()
        self._world.steps += 1

    def Recv(  # noqa: N802
        self, buf: Any, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: MPI.Status | None = None
    ) -> None:
        into = _array(buf)
        self._looked_in_vain = False
        self.waits_in = f"Recv(source={source}, tag={tag})"
        with self.mail:
            while (letter := self._letter(source, tag)) is None:
                self.mail.wait()
            self.letters.remove(letter)
        self.waits_in = ""
        self.calls["Recv"] += 1
        self._world.steps += 1
        if letter.data.size > into.size:
            raise MPIError(f"a message of {letter.data.size} values is truncated to {into.size}")
        self._fill("Recv", into.reshape(-1)[: letter.data.size], letter.data)
        _tell(status, letter)

    def Iprobe(  # noqa: N802
        self, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: MPI.Status | None = None
    ) -> bool:
        with self.mail:
            letter = self._letter(source, tag)
            if letter is None and self._looked_in_vain:
                self.mail.wait(_LONGEST_LOOK)
                letter = self._letter(source, tag)
        self._looked_in_vain = letter is None
        if letter:
            _tell(status, letter)
        return letter is not None

    def _letter(self, source: int, tag: int) -> _Letter | None:
        self._world.check()
        for letter in self.letters:
            if source in (MPI.ANY_SOURCE, letter.source) and tag in (MPI.ANY_TAG, letter.tag):
                return letter
        return None

    # --- what all of them need -----------------------------------------------------------------------------------

    def _join(
        self, name: str, *details: Any, given: Any = None, root: int | None = None, wait: bool = False
    ) -> _Meeting:
        """Comes to the next collective, and waits for everybody, or for its root, or for nobody."""
        self.calls[name] += 1
        number, self._joined = self._joined, self._joined + 1
        meeting = self._world.arrive(self.rank, number, (name, *details), root, given)
        self.waits_in = name
        if wait:
            meeting.all_there.wait()
        elif root is not None:
            meeting.root_there.wait()
        self.waits_in = ""
        self._world.check()
        return meeting

    def _leave(self, meeting: _Meeting, result: Any) -> Any:
        self._world.depart(meeting)
        return result

    def _combined(self, meeting: _Meeting, op: MPI.Op) -> np.ndarray:
        """Everybody's array, combined in an order that differs from collective to collective."""
        order = self._order(meeting.number)
        return meeting.once(self.size, lambda given: functools.reduce(_ufunc(op), [given[r] for r in order]))

    def _order(self, number: int) -> list[int]:
        return random.Random(number).sample(range(self.size), self.size)

    def _pickled(self, name: str, obj: Any) -> bytes:
        data = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
        self.sent[name] += len(data)
        return data

    def _unpickled(self, name: str, data: bytes) -> Any:
        self.received[name] += len(data)
        return pickle.loads(data)

    def _handed(self, name: str, array: np.ndarray) -> np.ndarray:
        self.sent[name] += array.nbytes
        return array.reshape(-1).copy()

    def _fill(self, name: str, into: np.ndarray, data: np.ndarray, who: str = "there are") -> None:
        if (into.dtype, into.size) != (data.dtype, data.size):
            raise MPIError(
                f"{name} on rank {self.rank}: {who} {data.size} {data.dtype}, the buffer has {into.size} {into.dtype}"
            )
        into.reshape(-1)[:] = data
        self.received[name] += data.nbytes


class Request:
    """An `Ibarrier` under way."""

    def __init__(self, comm: Comm, meeting: _Meeting) -> None:
        self._comm, self._meeting, self._done = comm, meeting, False

    def Test(self) -> bool:  # noqa: N802
        """Whether everybody has come."""
        if not self._done:
            self._comm.waits_in = "Ibarrier"
            self._done = self._meeting.all_there.wait(_LONGEST_TEST)
            self._comm.waits_in = ""
            self._comm._world.check()
            if self._done:
                self._comm._leave(self._meeting, None)
        return self._done


def _named(op: MPI.Op) -> str:
    return next(name for name, known, _ in _OPS if known == op)


def _ufunc(op: MPI.Op) -> np.ufunc:
    return next(ufunc for _, known, ufunc in _OPS if known == op)


def _array(spec: Any) -> np.ndarray:
    """The array of a buffer as mpi4py takes it: an array, or [array, count] or [array, type]."""
    array, *rest = spec if isinstance(spec, list | tuple) else [spec]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "?biufc" or not array.dtype.isnative:
        raise MPIError(f"no buffer of numbers: {type(array).__name__} {getattr(array, 'dtype', '')}")
    if not array.flags.c_contiguous:
        raise MPIError("the buffer is not contiguous")
    for about in rest:
        if isinstance(about, MPI.Datatype) and np.dtype(about.typestr) != array.dtype:
            raise MPIError(f"a buffer of {array.dtype} is said to be of {about.Get_name()}")
        if isinstance(about, int):
            array = array.reshape(-1)[:about]
    return array


def _parts(spec: Any, size: int) -> list[np.ndarray]:
    """The stretches of a buffer that belong to the ranks: [array, counts], [array, (counts, displacements)], ..."""
    array, counts, *rest = spec
    flat = _array([array, *(item for item in rest if isinstance(item, MPI.Datatype))]).reshape(-1)
    starts = next((item for item in rest if not isinstance(item, MPI.Datatype)), None)
    if isinstance(counts, tuple) and len(counts) == 2 and not np.isscalar(counts[0]):
        counts, starts = counts
    counts = [int(count) for count in counts]
    if starts is None:
        starts = [0, *itertools.accumulate(counts[:-1])]
    if len(counts) != size or any(start + count > flat.size for start, count in zip(starts, counts, strict=True)):
        raise MPIError(f"{len(counts)} counts, {sum(counts)} in all, of {flat.size} values among {size} ranks")
    return [flat[start : start + count] for start, count in zip(starts, counts, strict=True)]


def _tell(status: MPI.Status | None, letter: _Letter) -> None:
    if status is not None:
        status.source, status.tag = letter.source, letter.tag


def _place(frame: Any) -> str:
    """The line of code outside this module that a call came from."""
    while frame is not None and frame.f_code.co_filename in (__file__, threading.__file__):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "its end"


def _ranks(ranks: Sequence[int]) -> str:
    """Ranks in words: rank 3; ranks 0, 2-5."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    told = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"rank{'s' if len(ranks) > 1 else ''} {told}"
