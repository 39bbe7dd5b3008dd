"""One vLLM engine inside this process: token prompts in, replies out.

This wing alone imports vLLM, and only inside functions, when an engine starts or its arguments are checked. Only vLLM's
public entry points are used: `LLM` and the engine in it (add a request, step), `EngineArgs`, `SamplingParams`.
"""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable
from typing import Any

from pbeauty.game.experiment import Model, Sampling
from pbeauty.game.records import Reply
from pbeauty.llm.chat_template import ChatTemplate
from pbeauty.llm.engine_arguments import engine_arguments, load_template, resolved, sampling_arguments, with_context
from pbeauty.llm.placement import NodeRank, check_vllm, enter_environment, take_gpus, visible_gpus


class Engine:
    """A loaded model that answers many requests at once, in the order in which they finish."""

    def __init__(
        self, model: Model, place: NodeRank, seed: int, needed_context: Callable[[ChatTemplate], int] | None = None
    ) -> None:
        """Binds this process to its GPUs, imports vLLM and loads the model.

        Args:
            model: what to load.
            place: this engine's place among the engines of its node.
            seed: of whatever the engine draws that no request's own seed covers.
            needed_context: how many tokens of context the game needs with this chat template; None for the model's own.

        Raises:
            ConfigError: if vLLM is missing or too old, an argument unknown, or there are too few GPUs.
        """
        self.gpus = take_gpus(place, model.tensor_parallel_size, visible_gpus())
        self.notes = enter_environment(place, self.gpus)
        """What a person should know about how the engine was started."""
        check_vllm()
        arguments = engine_arguments(model, on_gpu=bool(self.gpus), seed=seed)
        with warnings.catch_warnings():
            # What libraries deprecate among themselves is no news for whoever starts a game.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            gc.disable()  # looking through all that is imported takes a quarter of a start
            try:
                self.template, own_context = load_template(model, arguments)
                from vllm import LLM
                from vllm.inputs import tokens_input
            finally:
                gc.freeze()
                gc.enable()
            if needed_context:
                arguments = with_context(arguments, own_context, needed_context(self.template))
            self.llm: Any = LLM(**arguments)
            """vLLM's own, with its defaults for offline batches."""
        self._engine = self.llm.llm_engine
        self._prompt = tokens_input
        config = self._engine.vllm_config
        self.arguments = arguments
        """What vLLM was started with, as it was given."""
        self.resolved = resolved(config)
        """What vLLM made of it, as JSON values."""
        self.max_model_len: int = config.model_config.max_model_len
        self.max_num_seqs: int = config.scheduler_config.max_num_seqs
        self.vocabulary: int = config.model_config.get_vocab_size()
        """Token ids are below this; models pad their tokenizer's vocabulary."""
        self._longest_context = self.max_model_len if "max_model_len" in model.engine else own_context
        self._keys: set[int] = set()

    def fits(self, needed_context: Callable[[ChatTemplate], int]) -> bool:
        """Whether the context is as long as another game needs, or as long as it can be."""
        return self.max_model_len >= min(self._longest_context, needed_context(self.template))

    @property
    def in_flight(self) -> int:
        """Requests submitted and not yet answered."""
        return len(self._keys)

    def sampling_params(self, sampling: Sampling, guided: str | None = None) -> Any:
        """vLLM's form of `sampling`, to be made once and submitted often; `guided` is a regular expression."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        given = sampling_arguments(sampling)
        # The token that ends a turn in the chat template, which some models' own settings lack, ends a reply.
        ends = [*(given.pop("stop_token_ids", None) or []), *self.template.end_of_turn()]
        return SamplingParams(
            **given,
            stop_token_ids=ends,
            detokenize=bool(given.get("stop")),  # whole batches are decoded in `step`; none is ever streamed
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(regex=guided) if guided else None,
            skip_clone=not guided,  # `submit` copies what it alters
        )

    def submit(self, key: int, prompt: list[int], params: Any, seed: int | None) -> None:
        """Adds a request.

        Args:
            key: comes back with the reply; differs from those in flight.
            prompt: token ids, at most `max_model_len - max_tokens` of them.
            params: what `sampling_params` made.
            seed: of this request alone, 0 <= seed < 2**63; None leaves the draw to the engine.
        """
        if seed is not None:
            params = copy.copy(params)
            params.seed = seed
        self._engine.add_request(str(key), self._prompt(prompt), params)
        self._keys.add(key)

    def step(self) -> dict[int, Reply]:
        """Advances all requests by one step; the replies that finished in it by their keys, none for most steps."""
        finished = {int(output.request_id): output for output in self._engine.step() if output.finished}
        self._keys.difference_update(finished)
        if not finished:
            return {}
        tokens = [self._without_end(output.outputs[0]) for output in finished.values()]
        return {
            key: Reply(
                tokens=ids,
                truncated=output.outputs[0].finish_reason == "length",
                prompt_tokens=len(output.prompt_token_ids),
                cached_tokens=output.num_cached_tokens or 0,
                text=text,
            )
            for (key, output), ids, text in zip(finished.items(), tokens, self.decode(tokens), strict=True)
        }

    def close(self) -> None:
        """Gives back what the engine holds, so that this process can load another model."""
        self.abort()
        self._engine.engine_core.shutdown()
        del self._engine, self.llm
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()

    def forget(self) -> None:
        """Empties the prefix cache; nothing may be in flight."""
        self._engine.reset_prefix_cache()

    def decode(self, replies: list[list[int]]) -> list[str]:
        """The texts of replies; with the tags of its thoughts where the model thinks."""
        return self.template.reasoning.decode(replies)

    def abort(self) -> None:
        """Forgets every request in flight."""
        self._engine.abort_request([str(key) for key in self._keys])
        self._keys.clear()

    def _without_end(self, output: Any) -> list[int]:
        """A finished reply's token ids without the token, or the text, that ended it; the next turn brings its own."""
        tokens = list(output.token_ids)
        if output.finish_reason != "stop":
            return tokens
        if isinstance(output.stop_reason, str):
            return self._engine.get_tokenizer().encode(output.text, add_special_tokens=False)
        return tokens[:-1]
