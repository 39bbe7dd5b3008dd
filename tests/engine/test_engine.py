"""The engine itself: real vLLM on the CPU with the demo model."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
from pathlib import Path

import numpy as np
import pytest
from made import table

from pbeauty.config.loader import loads
from pbeauty.errors import ConfigError
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Model, Sampling
from pbeauty.game.records import Purpose, Status
from pbeauty.job.participants import Participants
from pbeauty.llm.engine import Engine
from pbeauty.llm.engine_arguments import check_models, engine_arguments, engine_faults
from pbeauty.llm.placement import NodeRank, check_vllm
from pbeauty.mpi.partition import partition_population


@pytest.fixture(scope="module")
def engine():
    # So few tokens a step that prompts side by side would be split, were that allowed.
    return Engine(
        Model(engine={"max_model_len": 2048, "max_num_batched_tokens": 2048, "max_num_seqs": 64}),
        NodeRank(0, 2),
        seed=1,
    )


def answers(engine, prompts, params, seeds):
    found = {}
    for key, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        engine.submit(key, prompt, params, seed)
    while engine.in_flight:
        found |= engine.step()
    return [found[key] for key in range(len(prompts))]


def test_seeded_requests_survive_steps_that_are_full_of_long_prompts(engine):
    draw = np.random.default_rng(0)
    prompts = [draw.integers(20, 500, size=length).tolist() for length in draw.integers(200, 1900, size=40)]
    engine.forget()
    replies = answers(engine, prompts, engine.sampling_params(Sampling(max_tokens=6)), range(40))
    assert len(replies) == 40
    assert all(reply.prompt_tokens == len(prompt) for reply, prompt in zip(replies, prompts, strict=True))


def test_a_seed_fixes_a_reply_whatever_else_is_in_the_batch(engine):
    prompt = engine.template.tokenizer.encode("Pick a number from 0 to 100.")
    params = engine.sampling_params(Sampling(max_tokens=12))
    alone = answers(engine, [prompt] * 3, params, [11, 12, 13])
    crowd = answers(engine, [prompt] * 30, params, range(30))
    assert [reply.tokens for reply in alone] == [reply.tokens for reply in crowd[11:14]]
    assert len({tuple(reply.tokens) for reply in crowd}) > 3


def test_replies_come_without_the_token_that_ended_them_and_say_when_they_were_cut(engine):
    prompt = engine.template.tokenizer.encode("Pick a number from 0 to 100.")
    cut, *_ = answers(engine, [prompt], engine.sampling_params(Sampling(max_tokens=1)), [1])
    assert cut.truncated and len(cut.tokens) == 1
    whole = answers(engine, [prompt] * 20, engine.sampling_params(Sampling(max_tokens=64)), range(20))
    ends = engine.template.tokenizer.eos_token_id
    assert all(ends not in reply.tokens for reply in whole)
    assert any(not reply.truncated for reply in whole)
    assert all(reply.text == engine.decode([reply.tokens])[0] for reply in whole)


def test_the_prefix_cache_serves_what_was_asked_before_until_it_is_emptied(engine):
    prompt = np.random.default_rng(1).integers(20, 500, size=300).tolist()
    params = engine.sampling_params(Sampling(max_tokens=1))
    engine.forget()
    first, second = (answers(engine, [prompt], params, [1])[0] for _ in range(2))
    assert first.cached_tokens == 0 and second.cached_tokens >= 256
    engine.forget()
    assert answers(engine, [prompt], params, [1])[0].cached_tokens == 0


def test_abort_leaves_nothing_in_flight_and_the_engine_usable(engine):
    params = engine.sampling_params(Sampling(max_tokens=64))
    for key in range(10):
        engine.submit(key, [30, 31, 32], params, key)
    engine.step()
    engine.abort()
    assert engine.in_flight == 0 and engine.step() == {}
    assert len(answers(engine, [[30, 31, 32]], params, [1])) == 1


def test_guided_number_samples_nothing_but_numbers_of_the_range(engine):
    game = loads(
        "name: t\ngame: {low: -50, high: 250}\n"
        "population: [{name: g, count: 60, kind: llm, guided: number, retries: 0, sampling: {temperature: 2}}]"
    )
    play = Participants(game, partition_population(game, 1)[0], engine).answer(Announcement(0, {}))
    texts = [bytes(play.replies.text[row]).decode() for row in range(60)]
    assert all(re.fullmatch(r"-?\d{1,3}(\.\d{1,2})?", text) for text in texts)
    assert set(play.rows["status"]) == {Status.OK}


def test_groups_with_their_own_prompts_and_sampling_share_a_batch(engine):
    game = loads(
        "name: t\nseed: 2\npopulation:\n"
        "  - {name: warm, count: 30, kind: llm}\n"
        "  - {name: cold, count: 30, kind: llm, sampling: {temperature: 0}}\n"
        "  - {name: slow, count: 30, kind: llm, user_prompt: step-by-step, sampling: {max_tokens: 96}}\n"
    )
    play = Participants(game, partition_population(game, 1)[0], engine).answer(Announcement(0, {}))
    warm, cold, slow = (table(play.rows)[first : first + 30] for first in (0, 30, 60))
    assert len(np.unique(warm["guess"])) > 5 and len(np.unique(cold["guess"])) == 1
    assert slow["output_tokens"].mean() > 3 * warm["output_tokens"].mean()


def test_participants_on_several_ranks_answer_as_they_do_on_one(engine):
    game = loads("name: t\nseed: 6\npopulation: [{name: g, count: 60, kind: llm}]")

    def guesses(ranks):
        blocks = [block for block in partition_population(game, ranks) if block]
        answers = [Participants(game, block, engine).answer(Announcement(0, {})) for block in blocks]
        return np.concatenate([found.rows["guess"] for found in answers])

    # Equal prompts and equal seeds: what differs is the company in the engine's batch, in the last bits.
    assert np.mean(guesses(1) == guesses(4)) > 0.9


@pytest.mark.parametrize("extraction", ["pattern", "pattern-then-model", "model"])
def test_the_model_reads_replies_as_often_as_its_mode_says(extraction, engine):
    """The replies of `cut` end before any number: patterns find nothing in them, and the model may not either."""
    game = loads(
        f"name: t\nseed: 4\npopulation:\n"
        f"  - {{name: slow, count: 40, kind: llm, user_prompt: step-by-step, extraction: {extraction}, retries: 0,"
        " sampling: {max_tokens: 128}}\n"
        f"  - {{name: cut, count: 10, kind: llm, user_prompt: step-by-step, extraction: {extraction}, retries: 0,"
        " sampling: {max_tokens: 2}}\n"
    )
    play = Participants(game, partition_population(game, 1)[0], engine).answer(Announcement(0, {}))
    purposes = np.array(play.replies.purpose)
    extractions = {
        part: int((purposes[np.isin(play.replies.participant, ids)] == Purpose.EXTRACTION).sum())
        for part, ids in (("slow", range(40)), ("cut", range(40, 50)))
    }
    status = play.rows["status"]
    if extraction == "pattern":
        assert extractions == {"slow": 0, "cut": 0}
        assert (status[:40] == Status.OK).mean() > 0.9 and (status[40:] == Status.TRUNCATED).all()
    elif extraction == "pattern-then-model":
        assert extractions["slow"] <= 4 and extractions["cut"] == 10
        assert (status[:40] == Status.OK).mean() > 0.9 and (status[40:] != Status.OK).all()
    else:
        assert extractions == {"slow": 40, "cut": 10}
        assert (status[:40] == Status.EXTRACTED).mean() > 0.8 and (status != Status.OK).all()


def asking(models="{}", sampling="{}"):
    return loads(
        f"name: t\nmodels: {{m: {models}}}\n"
        f"population: [{{name: g, count: 2, kind: llm, model: m, sampling: {sampling}}}]"
    )


def test_names_that_vllm_does_not_know_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"models\.m\.engine: .*'gpu_memory_utilisation'.*'gpu_memory_utilization'"):
        check_models(asking("{engine: {gpu_memory_utilisation: 0.5}}"))
    with pytest.raises(ConfigError, match=r"population\.0\.sampling: .*'presense_penalty'.*'presence_penalty'"):
        check_models(asking(sampling="{presense_penalty: 0.5}"))
    with pytest.raises(ConfigError, match=r"population\.0\.sampling: .*min_p"):
        check_models(asking(sampling="{min_p: 7}"))
    with pytest.raises(ConfigError, match=r"vLLM has none of the name 'qwen33'; did you mean 'qwen3'"):
        check_models(asking("{reasoning_parser: qwen33}"))
    check_models(asking("{engine: {gpu_memory_utilization: 0.5, max_model_len: 100}}", "{min_p: 0.1, stop: [x]}"))
    wrong = (
        "{max_model_len: abc, gpu_memory_utilization: 2, max_num_seqs: 0, dtype: float99, enforce_eager: 3, seed_: 1}"
    )
    with pytest.raises(ConfigError) as caught:
        check_models(asking(f"{{engine: {wrong}}}"))
    told = dict(line.split(": ", 1) for line in str(caught.value).splitlines())
    keys = ("max_model_len", "gpu_memory_utilization", "max_num_seqs", "dtype", "enforce_eager")
    assert told.keys() == {"models.m.engine", *(f"models.m.engine.{key}" for key in keys)}
    assert "unable to parse string as an integer, found 'abc'" in told["models.m.engine.max_model_len"]
    assert "should be less than or equal to 1, found 2" in told["models.m.engine.gpu_memory_utilization"]
    check_models(asking("{engine: {max_model_len: 100}}", "{max_tokens: 99}"))
    with pytest.raises(ConfigError, match=r"0\.sampling\.max_tokens: 100 leaves no room .* context of 100 tokens"):
        check_models(asking("{engine: {max_model_len: 100}}", "{max_tokens: 100}"))
    fine = {"compilation_config": {"mode": 3}, "hf_overrides": {"a": 1}, "quantization": "fp8", "max_num_seqs": None}
    assert list(engine_faults(fine | {"block_size": 16, "kv_cache_dtype": "auto", "enable_prefix_caching": True})) == []


@pytest.mark.parametrize(
    "wrong", ["stop: 5", "stop: [1]", "bad_words: x", "logit_bias: {a: 1}", "presence_penalty: much", "min_tokens: -1"]
)
def test_sampling_parameters_of_another_type_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=f"sampling.*{wrong.partition(':')[0]}"):
        check_models(asking(sampling=f"{{{wrong}}}"))


@pytest.mark.parametrize(
    ("version", "good"), [("0.23.9", False), ("0.24.0", True), ("0.32.0+cpu", True), ("1.0", True)]
)
def test_vllm_is_asked_for_by_version(monkeypatch, version, good):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    if good:
        assert check_vllm() == version
    else:
        with pytest.raises(ConfigError, match=r"vLLM 0\.23\.9 is too old.*0\.24 or newer"):
            check_vllm()


def test_without_vllm_the_message_says_what_to_install(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"pbeauty\[gpu\].*pbeauty\[cpu\]"):
        check_vllm()


def test_what_the_configuration_passes_through_wins():
    arguments = engine_arguments(Model(engine={"dtype": "bfloat16", "max_num_seqs": 7}), on_gpu=False, seed=2**40 + 5)
    assert arguments["dtype"] == "bfloat16" and arguments["max_num_seqs"] == 7
    assert arguments["enable_chunked_prefill"] is False and arguments["seed"] == 5


def test_only_the_wing_of_models_imports_vllm_and_only_inside_functions():
    source = Path(str(importlib.resources.files("pbeauty")))
    found = [path for path in source.rglob("*.py") if re.search(r"(from|import) vllm", path.read_text("utf-8"))]
    assert {path.parent.name for path in found} == {"llm"}
    assert not [path for path in found if re.search(r"^(from|import) vllm", path.read_text("utf-8"), re.MULTILINE)]
