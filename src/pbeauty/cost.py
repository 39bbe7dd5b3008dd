"""What a job costs, as a sum of physical terms: a model that is fitted to measured runs and predicts others.

Time has five parts, of which the middle three are the job itself:

    start      the launcher, loading the program, planning; leaving in good order
    engines    loading the model
    playing    T rounds of the largest block's work, as fast as its rank is
    between    what a round costs besides: meetings of the ranks, collectives, scoring, storing
    figures    drawn at the end

Each is linear in coefficients that have units (`MEANING`), so that every part is fitted by non-negative least squares
on relative residuals, and a coefficient that the measured runs say nothing about stays undetermined (None) instead
of being invented. Ranks of a node share its cores: work of b busy ranks on c cores takes max(1, b / c) times as long.
A collective among R ranks takes ceil(log2 R) steps.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from pbeauty.game.experiment import Experiment, LLMGroup, UniformGroup
from pbeauty.mpi.partition import drawers, partition_population

SCRIPTED_BYTES, LLM_BYTES = 9, 25
"""Of run.h5 per participant and round: guess and status; with language models, tokens too."""
PARTS = ("start", "engines", "playing", "between", "figures")
MEANING = {
    "start_per_job": ("s", "starting and leaving, of a job"),
    "start_per_rank": ("s", "loading the program, of a rank with a core of its own"),
    "leave_engines": ("s", "more of a job with engines: checking, leaving"),
    "load_job": ("s", "agreeing on the engines, of a job"),
    "load_engine": ("s", "loading a model, of an engine with a core of its own"),
    "guess": ("s", "a scripted guess, on a core of its own"),
    "engine_own": ("s", "a participant's round on an engine: the part that takes one core, or its GPU"),
    "engine_shared": ("s", "a participant's round on an engine: the part that all engines of a node share"),
    "engine_history": ("s", "the same, more per round played before: a longer conversation"),
    "engine_round": ("s", "filling and draining an engine, per round"),
    "report": ("s", "until the moderator hears of the end of a round"),
    "round": ("s", "a round's fixed part: announcing, files"),
    "meeting": ("s", "ranks waiting for each other, per meeting and step of log2 ranks"),
    "latency": ("s", "a collective of a few bytes, per step of log2 ranks"),
    "byte_sent": ("s", "a byte through a collective; its inverse is the bandwidth"),
    "score": ("s", "taking a guess into account, on the rank that hosts it"),
    "moderate": ("s", "taking a guess into account, on the moderator"),
    "byte_stored": ("s", "a byte written into run.h5; its inverse is the storage rate"),
    "byte_by_block": ("s", "a byte written by the rank that has it; its inverse is that storage rate"),
    "reply_stored": ("s", "sealing what a language model replied"),
    "figures_per_job": ("s", "figures, of a job"),
    "figures_per_round": ("s", "a figure, of those that one rank draws"),
    "figures_per_guess": ("s", "the same, of a guess in it"),
    "rank_memory": ("bytes", "the program, on any rank"),
    "drawing_memory": ("bytes", "more on a rank that draws figures"),
    "engine_memory": ("bytes", "more on a rank with an engine, the model included"),
    "guess_memory": ("bytes", "of a scripted participant, on its rank"),
    "participant_memory": ("bytes", "of a language model's participant, on its rank"),
    "moderated_memory": ("bytes", "of any participant, on the moderator"),
    "stored_memory": ("bytes", "of a byte of run.h5, on the moderator"),
}
"""Units and meanings of all coefficients."""


@dataclass(frozen=True)
class Work:
    """All that the cost of an experiment on a number of ranks depends on."""

    participants: int
    rounds: int
    ranks: int
    nodes: int
    """That they are spread over evenly."""
    cores: int
    """Of a node."""
    hosts: int
    """Ranks with participants."""
    scripted_block: int
    """Scripted participants of the rank that has most."""
    llm_block: int
    engines: int
    think_seconds: float = 0.0
    """That every round takes at least."""
    gathered: bool = True
    """Whether guesses are gathered into run.h5; otherwise each rank writes its own."""

    @property
    def steps(self) -> int:
        """Of a collective: ceil(log2 ranks)."""
        return (self.ranks - 1).bit_length()

    @property
    def stored_bytes(self) -> int:
        """Of run.h5 at the end."""
        return self.gathered * self.participants * self.rounds * (LLM_BYTES if self.engines else SCRIPTED_BYTES)

    @property
    def written_bytes(self) -> float:
        """Into run.h5 over all rounds, each of which replaces it as a whole."""
        return self.stored_bytes * (self.rounds + 1) / 2

    @property
    def written_by_block(self) -> float:
        """Bytes that the rank with most participants writes of its own over all rounds."""
        row = LLM_BYTES if self.engines else SCRIPTED_BYTES
        return 0 if self.gathered else row * self.rounds * (self.scripted_block + self.llm_block)

    @property
    def drawers(self) -> int:
        """Ranks that draw figures, the moderator first."""
        return drawers(self.ranks, self.cores, self.rounds)

    @property
    def figures(self) -> float:
        """Figures that each of them draws."""
        return -(-(self.rounds + 1) // self.drawers)

    def on_a_node(self, ranks: int) -> int:
        """So many ranks' share on the fullest node."""
        return -(-ranks // self.nodes)

    def crowding(self, busy: int) -> float:
        """How many times as long work takes while so many ranks are busy."""
        return max(1.0, self.on_a_node(busy) / self.cores)


@dataclass(frozen=True)
class Traffic:
    """Collectives of a round, counted."""

    meetings: float = 0.0
    """Of all ranks, idle until the last has come."""
    collectives: float = 0.0
    """All others."""
    bytes: float = 0.0
    """Through the busiest rank, whatever the size of the job."""
    bytes_per_rank: float = 0.0
    bytes_per_participant: float = 0.0

    def bytes_of(self, work: Work) -> float:
        """Of one round, through the busiest rank."""
        return (
            self.bytes
            + self.bytes_per_rank * work.ranks
            + self.bytes_per_participant * work.participants * work.gathered
        )


@dataclass(frozen=True)
class Exchange:
    """One kind of collective as it was timed."""

    operation: str
    ranks: int
    cores: int
    bytes: int
    """That each rank gives or gets."""
    seconds: float

    @property
    def steps(self) -> int:
        """ceil(log2 ranks)"""
        return (self.ranks - 1).bit_length()


@dataclass(frozen=True)
class Measurement:
    """What one job took: medians over its repetitions."""

    work: Work
    seconds: dict[str, float]
    """By `PARTS`."""
    wall_seconds: float
    cpu_seconds: float
    """Of all ranks."""
    moderator_memory: float
    """Peak resident bytes."""
    host_memory: float
    """Of the rank with participants, the moderator apart, that has most; 0 where there is none."""
    memory: float
    """Of all ranks together."""
    series: tuple[str, ...] = ()
    """Curves that it belongs to."""
    held_out: bool = False
    """Whether it is predicted instead of fitted."""
    repeats: int = 1


@dataclass(frozen=True)
class Prediction:
    """What a job should take."""

    seconds: dict[str, float]
    """By `PARTS`."""
    moderator_memory: float
    """Bytes, as are the next ones."""
    host_memory: float
    """Of the fullest rank with participants, the moderator apart."""
    memory: float
    """Of all ranks, at most."""
    unknown: tuple[str, ...]
    """Coefficients that matter here and that the measured runs have not determined; they count as nothing."""

    @property
    def wall_seconds(self) -> float:
        """From the launcher's start to its end."""
        return sum(self.seconds.values())

    @property
    def round_seconds(self) -> float:
        """Of all rounds."""
        return self.seconds["playing"] + self.seconds["between"]


@dataclass(frozen=True)
class CostModel:
    """Coefficients, and the collectives that a round has."""

    coefficients: dict[str, float | None]
    """By the names in `MEANING`; None where the measured runs say nothing about it."""
    traffic: Traffic = field(default_factory=Traffic)
    cores: int = 1
    """Of the machine that was measured."""

    @property
    def engine_rate(self) -> float | None:
        """Participants/s of one engine that has a node to itself, in a first round; None where that is unknown."""
        own, shared = self.coefficients["engine_own"], self.coefficients["engine_shared"]
        seconds = (own or 0.0) + (shared or 0.0) / self.cores
        return 1 / seconds if seconds else None

    def with_engine_rate(self, rate: float) -> CostModel:
        """The same with engines that play `rate` participants/s each, however many rounds they have played."""
        engine: dict[str, float | None] = {"engine_own": 1 / rate, "engine_shared": 0.0, "engine_history": 0.0}
        return dataclasses.replace(self, coefficients=self.coefficients | engine)

    def without_engines(self) -> CostModel:
        """The same for models other than the one that played, about which it says nothing."""
        own = ("load_engine", "engine_own", "engine_shared", "engine_history", "engine_round", "engine_memory")
        return dataclasses.replace(self, coefficients=self.coefficients | dict.fromkeys(own))

    def predict(self, work: Work) -> Prediction:
        """What so much work should take."""
        terms = terms_of(work, self.traffic)
        unknown = [name for part in terms.values() for name, n in part.items() if n and self.coefficients[name] is None]
        value = {part: sum(n * (self.coefficients[name] or 0.0) for name, n in terms[part].items()) for part in terms}
        value["playing"] = max(value["playing"], work.rounds * work.think_seconds)
        moderator, host = value.pop("moderator_memory"), value.pop("host_memory")
        drawing = self.coefficients["drawing_memory"] or 0.0
        idle = (work.ranks - 1) - (work.drawers - 1)  # ranks beside the moderator that draw nothing
        memory = moderator + (work.ranks - 1) * host - (idle * drawing if work.drawers > 1 else 0.0)
        return Prediction(value, moderator, host, memory, tuple(dict.fromkeys(unknown)))


def work_of(experiment: Experiment, ranks: int, nodes: int, cores: int) -> Work:
    """The work that an experiment is.

    Args:
        experiment: resolved.
        ranks: that it is to be played on.
        nodes: that these are spread over.
        cores: of a node.

    Raises:
        ConfigError: if it cannot be played on so few ranks.
    """
    blocks = []
    for hosting in partition_population(experiment, ranks):
        llm = sum(len(s) for s in hosting if isinstance(experiment.population[s.group], LLMGroup))
        blocks.append((sum(map(len, hosting)) - llm, llm))
    engines = sum(llm > 0 for _, llm in blocks)
    return Work(
        participants=experiment.count,
        rounds=experiment.game.rounds,
        ranks=ranks,
        nodes=min(nodes, ranks),
        cores=cores,
        hosts=sum(any(block) for block in blocks),
        scripted_block=max(scripted for scripted, _ in blocks),
        llm_block=max(llm for _, llm in blocks),
        engines=engines,
        gathered=True,
        think_seconds=max((g.think_time for g in experiment.population if isinstance(g, UniformGroup)), default=0.0),
    )


def terms_of(work: Work, traffic: Traffic) -> dict[str, dict[str, float]]:
    """How often each coefficient counts, by part of the time and by whose memory."""
    rounds, steps = work.rounds, work.steps
    crowd, engine_crowd = work.crowding(work.hosts), work.crowding(work.engines)
    loaded = float(work.engines > 0)
    asked = rounds * work.llm_block
    alone = work.ranks == 1
    block = {
        "engine_memory": loaded,
        "guess_memory": work.scripted_block,
        "participant_memory": work.llm_block,
    }
    moderator = {
        "rank_memory": 1,
        "drawing_memory": 1,
        "moderated_memory": work.participants * work.gathered,
        "stored_memory": work.stored_bytes,
    }
    return {
        "start": {
            "start_per_job": 1,
            "start_per_rank": work.crowding(work.ranks),
            "leave_engines": loaded,
        },
        "engines": {"load_job": 1, "load_engine": loaded * engine_crowd},
        "playing": {
            "guess": rounds * work.scripted_block * crowd,
            "engine_own": asked * engine_crowd,
            "engine_shared": asked * work.on_a_node(work.engines) / work.cores,
            "engine_history": asked * (rounds - 1) / 2 * engine_crowd,
            "engine_round": rounds * loaded,
            "report": rounds * (not alone),
        },
        "between": {
            "round": rounds,
            "meeting": rounds * traffic.meetings * steps * work.crowding(work.ranks),
            "latency": rounds * traffic.collectives * steps,
            "byte_sent": rounds * traffic.bytes_of(work) * (not alone),
            "score": rounds * (work.scripted_block + work.llm_block) * crowd,
            "moderate": rounds * work.participants * work.gathered,
            "byte_stored": work.written_bytes,
            "byte_by_block": work.written_by_block * crowd,
            "reply_stored": asked * engine_crowd,
        },
        "figures": {
            "figures_per_job": 1,
            "figures_per_round": work.figures,
            "figures_per_guess": -(-rounds // work.drawers) * work.participants,
        },
        "moderator_memory": moderator | (block if alone else {}),
        "host_memory": {} if alone else {"rank_memory": 1, "drawing_memory": work.drawers > 1} | block,
    }
