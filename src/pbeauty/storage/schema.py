"""What is on disk, schema 2: names of files and datasets, with the units and the description of each dataset."""

from __future__ import annotations

from typing import NamedTuple

from pbeauty.game.records import Purpose, ReadingRule, Status

SCHEMA_VERSION = 2
JOURNALS = "journal"
ROUNDS = "rounds"
"""Folder of the rounds of a run that is being played, a file each."""
REPLIES = "replies"

PER_PARTICIPANT = {
    "guess": ("units of the game", "the participant's guess; NaN where there is none"),
    "status": ("code", "what became of the reply; the attribute `labels` names the codes"),
    "reading": ("code", "which rule read the guess; the attribute `labels` names the codes"),
    "forgotten": ("rounds", "oldest rounds left out of the prompt to fit the model's context"),
    "prompt_tokens": ("tokens", "prompt tokens of all calls for the participant in the round"),
    "cached_tokens": ("tokens", "those of them that the engine's prefix cache served"),
    "output_tokens": ("tokens", "tokens sampled in all calls for the participant in the round"),
}
_CODES = {"status": Status, "reading": ReadingRule, "purpose": Purpose}
LABELS = {name: [code.name.lower() for code in codes] for name, codes in _CODES.items()}
"""The names of the codes in those columns by participant or reply that are codes."""
PER_REPLY = {
    "participant": ("id", "who replied; ascending, with a participant's calls in order"),
    "purpose": ("code", "what the call was for; the attribute `labels` names the codes"),
    "text": ("UTF-8 bytes", "all replies, one after the other"),
    "text_offsets": ("bytes", "reply r is text[text_offsets[r]:text_offsets[r + 1]]"),
    "tokens": ("token ids", "all replies as sampled, one after the other"),
    "token_offsets": ("tokens", "reply r is tokens[token_offsets[r]:token_offsets[r + 1]]"),
}
PER_SESSION = {
    "mean": ("units of the game", "mean of the valid guesses"),
    "median": ("units of the game", "median of the valid guesses"),
    "std": ("units of the game", "population standard deviation (divisor n) of the valid guesses"),
    "lower_quartile": ("units of the game", "0.25 quantile of the valid guesses, linear between two (type 7)"),
    "upper_quartile": ("units of the game", "0.75 quantile of the valid guesses, linear between two (type 7)"),
    "min": ("units of the game", "smallest valid guess"),
    "max": ("units of the game", "largest valid guess"),
    "target": ("units of the game", "offset + multiplier x aggregate"),
    "winning_guess": ("units of the game", "the guess nearest to the target; NaN where nobody won"),
    "n_valid": ("participants", "valid guesses"),
    "n_winners": ("players", "who won: nearest to the target, or within the tolerance; groups where groups play"),
}
"""Figures of a round by session; where it has no valid guess, and in the rounds after that, NaN, and 0 of counts."""
TIME_PARTS = {
    "seconds_playing": "playing",
    "seconds_waiting": "waiting for the slowest",
    "seconds_gathering": "scoring and gathering",
    "seconds_storing": "storing",
}
"""Where the time of a round goes; playing is the average of the ranks. All but the last are parts of `seconds`."""
PER_ROUND = {
    "seconds": ("s", "wall time from announcement to score"),
    **{name: ("s", f"wall time: {what}; NaN where it was not taken") for name, what in TIME_PARTS.items()},
}
PERSONAS = {
    "source": ("code", "where each background comes from; `labels` names the codes"),
    "row": ("row", "the background of each participant; -1 where there is none"),
    "text": ("UTF-8 bytes", "all different backgrounds, one after the other"),
    "text_offsets": ("bytes", "background r is text[text_offsets[r]:text_offsets[r + 1]]"),
}
DIGESTS = ("BLAKE2b-256", "digests of files that run.h5 refers to, in the order of their names")


class StoredFile(NamedTuple):
    """A finished file of a run, as run.h5 refers to it."""

    path: str
    """Relative to the run's folder."""
    digest: bytes
    """BLAKE2b-256."""


def reply_file(round_index: int, first_participant: int) -> str:
    """Where replies of a round are, relative to the run's folder."""
    return f"{REPLIES}/{round_index + 1:04d}/{first_participant:09d}.h5"


def round_file(round_index: int) -> str:
    """Where the rows of a round are while the run is played, relative to its folder."""
    return f"{ROUNDS}/{round_index + 1:04d}.h5"
