"""What an engine is started with: vLLM's own defaults for offline batches, and a context as long as the game needs."""

from __future__ import annotations

import json
import re

import mpi
import numpy as np
import pytest
import speaker

from pbeauty.cli.main import main
from pbeauty.config.loader import dumps, loads
from pbeauty.errors import ConfigError
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Model
from pbeauty.game.population import everybody
from pbeauty.job.participants import Participants
from pbeauty.llm import engine as engine_module
from pbeauty.llm.context_size import game_context, longest_traits
from pbeauty.llm.engine import Engine
from pbeauty.llm.engine_arguments import describe_engine, engine_arguments, resolved
from pbeauty.llm.placement import NodeRank
from pbeauty.mpi.partition import partition_population

GIB = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a context of 131,072 tokens, whose replies are always at their longest."""
    endless = [f"{letter} and " for letter in "abcdefghijklmnopqrstuvwxyz"]
    return speaker.make(tmp_path_factory.mktemp("m") / "m", endless, positions=131_072)


class Started(Exception):  # noqa: N818
    """Carries what an engine is being started with."""


@pytest.fixture
def device(monkeypatch):
    """Pretends a GPU: its memory in bytes and its name; engines are not started but raise `Started`."""
    from vllm.engine import arg_utils
    from vllm.v1.engine.llm_engine import LLMEngine

    class Device:
        memory, name = 80 * GIB, "NVIDIA H100 80GB HBM3"

        def __getattr__(self, name):
            return getattr(real, name)

        def get_device_total_memory(self, device_id=0):
            return self.memory

        def get_device_name(self, device_id=0):
            return self.name

        def is_cpu(self):
            return False

    def start(cls, engine_args, usage_context, **_):
        raise Started(engine_args, usage_context)

    real = arg_utils.current_platform
    monkeypatch.setattr(LLMEngine, "from_engine_args", classmethod(start))
    monkeypatch.setattr(engine_module, "visible_gpus", lambda: ["0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(arg_utils, "current_platform", device := Device())
    return device


def started_with(start):
    """What vLLM resolves an engine's arguments to."""
    with pytest.raises(Started) as caught:
        start()
    arguments, usage = caught.value.args
    return resolved(arguments.create_engine_config(usage_context=usage))


@pytest.mark.parametrize(
    ("gib", "name", "batch"),
    [(80, "NVIDIA H100", (1024, 16_384)), (80, "NVIDIA A100-SXM4", (256, 8192)), (24, "NVIDIA L4", (256, 8192))],
)
def test_an_engine_on_a_gpu_gets_what_vllm_gives_to_offline_batches(device, folder, gib, name, batch):
    from vllm import LLM

    device.memory, device.name = gib * GIB, name
    own = started_with(lambda: LLM(model=str(folder)))
    ours = started_with(lambda: Engine(Model(path=str(folder)), NodeRank(0, 1), seed=0))
    assert ours == own
    assert (ours["max_num_seqs"], ours["max_num_batched_tokens"]) == batch
    assert ours["enable_chunked_prefill"] and ours["enable_prefix_caching"]


def test_only_the_cpu_build_never_splits_prefills():
    assert engine_arguments(Model(), on_gpu=False, seed=0)["enable_chunked_prefill"] is False
    assert not {"enable_chunked_prefill", "max_num_batched_tokens", "max_num_seqs", "dtype", "enforce_eager"} & (
        engine_arguments(Model(), on_gpu=True, seed=0).keys()
    )


# --- the context -------------------------------------------------------------------------------------------


def game(folder, rounds=3, engine="{}", max_tokens=20, **group):
    settings = {"name": "g", "count": 3, "kind": "llm", "model": "m", "sampling": {"max_tokens": max_tokens}, **group}
    return loads(
        f"name: t\ngame: {{rounds: {rounds}, announce: [target, own_rank]}}\n"
        f"models: {{m: {{path: {folder}, engine: {engine}}}}}\npopulation: [{settings}]"
    )


def started(experiment):
    groups = longest_traits(experiment, everybody(experiment).group_of(), None)
    return Engine(experiment.models["m"], NodeRank(0, 1), 1, lambda t: game_context(experiment, t, groups))


def test_the_longest_conversation_of_the_game_fits_the_context_and_little_more_does(folder):
    experiment = game(folder, rounds=5, retries=2, extraction="pattern")
    engine = started(experiment)
    block = Participants(experiment, partition_population(experiment, 1)[0], engine)
    for r in range(5):
        ranks = np.array([1, 2, 3], np.int32) if r else None
        answers = block.answer(Announcement(r, {"target": np.array([66.66])} if r else {}, ranks=ranks))
        assert not answers.rows["forgotten"].any(), "nothing is forgotten"
    longest = int(answers.rows["prompt_tokens"].max()) - sum(len(block.llm.prompt(0)[0]) for _ in range(2))
    engine.close()
    assert longest <= engine.max_model_len < longest + 1500
    assert engine.resolved["max_model_len"] == engine.max_model_len


def test_check_says_the_context_and_all_arguments_without_loading_weights(folder):
    experiment = game(folder)
    found = describe_engine(experiment, "m", None)
    assert found["own_context"] == 131_072 and found["context"] % 512 == 0 and found["context"] < 4096
    assert found["arguments"]["max_model_len"] == found["context"]
    assert found["arguments"]["max_num_seqs"] == 256 and found["arguments"]["enable_chunked_prefill"] is False


@pytest.mark.parametrize("rounds", [4, 5000])
def test_a_context_is_at_most_the_models_own(folder, rounds):
    experiment = game(folder, rounds=rounds, max_tokens=64)
    found = describe_engine(experiment, "m", None)
    assert found["arguments"]["max_model_len"] == min(found["context"], 131_072)
    assert (found["context"] > 131_072) is (rounds == 5000)


def test_a_stated_context_wins_and_prompts_that_do_not_fit_it_are_refused(folder):
    experiment = game(folder, engine="{max_model_len: 3000}")
    assert describe_engine(experiment, "m", None)["arguments"]["max_model_len"] == 3000
    with pytest.raises(ConfigError, match=r"group g: its prompt \(\d+ tokens\).*context of model m \(300 tokens\)"):
        describe_engine(game(folder, engine="{max_model_len: 300}"), "m", None)


def test_the_command_says_what_engines_start_with(folder, tmp_path, capsys):
    config = tmp_path / "e.yaml"
    config.write_text(dumps(game(folder)))
    assert main(["check", str(config), "--engines"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"model m: a context of [\d,]+ tokens holds every conversation; the model's own is 131,072", said)
    assert re.search(r"model m: the engine starts with max_model_len \d+, dtype .*max_num_seqs 256", said)
    assert main(["check", str(config), "--engines", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"]["m"]["arguments"]["enable_prefix_caching"] is True


def test_arguments_that_only_an_engine_looks_at_are_said_to_be_so_and_looked_at_where_that_is_asked_for(
    tmp_path, capsys
):
    config = tmp_path / "e.yaml"
    config.write_text("name: e\npopulation: [{name: g, count: 2, kind: llm}]")

    def check(*words):
        assert main(["check", str(config), *words]) == 0
        return capsys.readouterr().out

    assert "--engines" not in check()
    odd = ("--set", "models.demo.path=demo", "--set", "models.demo.engine.load_format=nope")
    assert "engine arguments: names, types and limits are right; --engines has vLLM look at them together" in check(
        *odd
    )
    known = check(*odd, "--engines")
    assert "WARNING: model demo: what its engine starts with is unknown here: Load format `nope` is not" in known
    # In a process of its own, whose standard error libraries could write to.
    done = mpi.alone("check", config, "--engines")
    assert (done.code, done.err) == (0, ""), done
    assert "model demo: the engine starts with max_model_len" in done.out
