"""A real language model, SmolLM2-135M-Instruct: a game of `configs/smollm2.yaml` with five participants.

The checkpoint is made once, as `make smollm2` makes it, and kept in `build/`.
"""

from __future__ import annotations

import os
import subprocess

import h5py
import numpy as np
import pytest
from mpi import mpirun

from pbeauty.config.loader import load
from pbeauty.game.prompt_variables import population_variables
from pbeauty.game.prompts import system_message, user_message
from pbeauty.game.records import ReadingRule, Status

CONFIG = "configs/smollm2.yaml"
GUIDED, COUNT = 3, 5
SMALLER = [f"population.{group}.count={count}" for group, count in enumerate((GUIDED, 1, 1))]
SMALLER += ["population.1.sampling.max_tokens=24", "population.2.sampling.max_tokens=24"]
LIMIT = 600
"""Seconds after which something counts as hanging."""


@pytest.fixture(scope="module")
def checkpoint(pytestconfig):
    """The folder of the checkpoint."""
    folder = pytestconfig.rootpath / "build/smollm2"
    if not folder.exists():
        command = ["make", "build/smollm2"]
        made = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=LIMIT)
        if made.returncode:
            missing = f"no SmolLM2, `make build/smollm2` failed: {made.stderr[-2000:]}"
            pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return folder


@pytest.fixture(scope="module")
def played(checkpoint, tmp_path_factory, pytestconfig):
    """The experiment and the run.h5 of its game."""
    folder = tmp_path_factory.mktemp("smollm2") / "run"
    overrides = [*SMALLER, f"models.smollm2.path={checkpoint}"]
    options = [part for override in overrides for part in ("--set", override)]
    done = mpirun(2, "run", CONFIG, "--out", folder, *options, timeout=LIMIT, folder=pytestconfig.rootpath)
    assert done.code == 0, done
    with h5py.File(folder / "run.h5") as run:
        yield load(pytestconfig.rootpath / CONFIG, overrides), run


def test_everybody_is_counted_in_both_rounds(played):
    _, run = played
    rounds = run["rounds"]
    assert rounds["guess"].shape == (2, COUNT)
    valid = rounds["status"][:] <= Status.RETRIED
    np.testing.assert_array_equal(np.isnan(rounds["guess"][:]), ~valid)
    np.testing.assert_array_equal(rounds["reading"][:] == ReadingRule.NONE, ~valid)
    np.testing.assert_array_equal(rounds["n_valid"][:, 0], valid.sum(axis=1))
    assert rounds["target"][0, 0] == pytest.approx(rounds["mean"][0, 0] * 2 / 3)
    assert (rounds["output_tokens"][:] > 0).all()


def test_guided_participants_say_numbers_of_the_range_and_nothing_else(played):
    _, run = played
    guided = np.s_[:, :GUIDED]
    assert (run["rounds/status"][guided] == Status.OK).all()
    assert (run["rounds/reading"][guided] == ReadingRule.NUMBER_ALONE).all()
    assert (run["rounds/guess"][guided] >= 0).all() and (run["rounds/guess"][guided] <= 100).all()


def test_prompts_and_replies_are_those_of_the_models_own_template_and_tokenizer(played, checkpoint):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    experiment, run = played
    variables = population_variables(experiment)
    first = [
        {"role": "system", "content": system_message("classic", variables)},
        {"role": "user", "content": user_message("direct", 0, variables, {})},
    ]
    prompt = tokenizer.apply_chat_template(first, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert tokenizer.decode(prompt).startswith(f"<|im_start|>system\n{COUNT} players")
    assert (run["rounds/prompt_tokens"][0, :GUIDED] == len(prompt)).all()
    for replies in (block for number in run["replies"].values() for block in number.values()):
        text, bounds = replies["text"][:].tobytes(), replies["text_offsets"][:]
        for row in range(len(replies["participant"])):
            begin, end = replies["token_offsets"][row : row + 2]
            said = text[bounds[row] : bounds[row + 1]].decode()
            assert "<|im_" not in said
            assert said == tokenizer.decode(replies["tokens"][begin:end], skip_special_tokens=True)
