"""The arguments that a vLLM engine is started with: ours, the experiment's, and what vLLM makes of the rest."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from pbeauty.errors import ConfigError, nearest
from pbeauty.game.experiment import DEMO_MODEL, Experiment, LLMGroup, Model, Sampling
from pbeauty.game.personas import Personas
from pbeauty.game.population import everybody
from pbeauty.llm.chat_template import ChatTemplate
from pbeauty.llm.context_size import check_room, game_context, longest_traits
from pbeauty.llm.model_files import architectures, check_chat_template, longest_context, model_source
from pbeauty.llm.placement import NodeRank, check_vllm, enter_environment, visible_gpus
from pbeauty.llm.reasoning import check_parser

_RESOLVED = {
    "model_config": ("max_model_len", "dtype", "quantization", "enforce_eager", "seed"),
    "scheduler_config": ("max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill"),
    "cache_config": ("block_size", "enable_prefix_caching", "gpu_memory_utilization", "cache_dtype"),
    "parallel_config": ("tensor_parallel_size",),
}
"""What is worth knowing of an engine's configuration, by the part of it that has it."""


def check_models(experiment: Experiment, base: Path = Path()) -> None:
    """Checks the models of an experiment, and what is passed on to vLLM, as far as that goes without an engine.

    Imports vLLM (seconds) only where the experiment has arguments for it. `base` is the folder of its file.

    Raises:
        ConfigError: saying what is wrong; of unknown names, the nearest known ones.
    """
    models = experiment.used_models
    if models:
        check_vllm()
    for model in models.values():
        model_source(model, base)
        check_chat_template(model)
        if model.reasoning_parser:
            check_parser(model.reasoning_parser)
    faults = []
    for name, model in models.items():
        if model.engine:
            faults += [f"models.{name}.engine{fault}" for fault in engine_faults(model.engine)]
    for index, group in enumerate(experiment.population):
        if not isinstance(group, LLMGroup):
            continue
        key, tokens, model = f"population.{index}.sampling", group.sampling.max_tokens, models[group.model]
        context = model.engine.get("max_model_len", longest_context(model))
        if type(context) is int and 0 < context <= tokens:
            what = f"{tokens} leaves no room for a prompt in a context of {context} tokens"
            faults.append(f"{key}.max_tokens: {what} (model {group.model})")
        if group.sampling.model_extra:
            faults += [f"{key}{fault}" for fault in _sampling_faults(group.sampling)]
    if faults:
        raise ConfigError("\n".join(faults))


def _sampling_faults(sampling: Sampling) -> list[str]:
    from vllm import SamplingParams

    given, kinds = sampling.model_extra or {}, get_type_hints(SamplingParams)
    known = [name for name in kinds if not name.startswith("_")]
    if unknown := _unknown(given, known):
        return [f": vLLM knows no sampling parameter {unknown}"]
    if wrong := [f".{name}: {fault}" for name in given if (fault := _misfit([kinds[name]], given[name]))]:
        return wrong
    try:
        SamplingParams(**sampling_arguments(sampling))
    except Exception as error:  # of several kinds, vLLM's own among them
        return [f": {error}"]
    return []


def engine_faults(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Engine arguments that vLLM does not know, or whose values its types and limits rule out on every device.

    What is wrong is to be put behind the key of the arguments: `.max_num_seqs: ...`.
    """
    from vllm import EngineArgs
    from vllm.config import CacheConfig, LoadConfig, ModelConfig, ParallelConfig, SchedulerConfig

    types = {field.name: field.type for field in dataclasses.fields(EngineArgs)}
    sections = (ModelConfig, CacheConfig, SchedulerConfig, ParallelConfig, LoadConfig)  # with limits, unlike EngineArgs
    if unknown := _unknown(arguments, list(types)):
        yield f": vLLM knows no argument {unknown}"
    for name in arguments.keys() & types.keys():
        limits = [section.__pydantic_fields__[name] for section in sections if name in section.__pydantic_fields__]
        kinds = [] if isinstance(types[name], str) else [types[name]]
        kinds += [Annotated[limit.annotation | None, *limit.metadata, None] for limit in limits]
        if fault := _misfit(kinds, arguments[name]):
            yield f".{name}: {fault}"


def _unknown(names: Iterable[str], known: Sequence[str]) -> str:
    return ", ".join(f"{name!r}{nearest(name, known)}" for name in names if name not in known)


def _misfit(kinds: Sequence[Any], value: Any) -> str | None:
    """What keeps a value from being of all these types, in the words of the first that it is not of."""
    for kind in kinds:
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            return f"{message[0].lower()}{message[1:]}, found {value!r}"
        except PydanticUserError:  # vLLM's own classes, which it checks itself when an engine starts
            continue
    return None


def sampling_arguments(sampling: Sampling) -> dict[str, Any]:
    """The arguments of vLLM's `SamplingParams` that an experiment gives."""
    given = sampling.model_dump()
    if isinstance(bias := given.get("logit_bias"), dict):
        given["logit_bias"] = {int(token): value for token, value in bias.items()}  # keys of a section are text
    return given


def engine_arguments(model: Model, *, on_gpu: bool, seed: int) -> dict[str, Any]:
    """The arguments vLLM is started with: ours where the model's `engine` section says nothing."""
    arguments: dict[str, Any] = {
        "model": model_source(model),
        "tensor_parallel_size": model.tensor_parallel_size,
        "seed": seed % 2**32,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "enable_prefix_caching": True,
    }
    if not on_gpu:
        # The CPU build's sampler fails on a seeded request whose prefill is split over two steps. Only whole blocks are
        # ever cached: the smallest that its attention takes, for prompts this short.
        arguments |= {"enable_chunked_prefill": False, "enforce_eager": True, "dtype": "float32", "block_size": 32}
        if model.path == DEMO_MODEL:
            arguments["max_num_batched_tokens"] = 16384
    return arguments | model.engine


def load_template(model: Model, arguments: Mapping[str, Any]) -> tuple[ChatTemplate, int]:
    """A model's chat template, and the tokens of its own longest context; loads no weights.

    Raises:
        ConfigError: if vLLM cannot load the model's configuration or its tokenizer.
    """
    from vllm import EngineArgs, ModelRegistry
    from vllm.platforms import current_platform
    from vllm.tokenizers import cached_tokenizer_from_config

    # vLLM sets its loggers up only when an engine starts; until then all warnings would be printed.
    logging.getLogger("vllm").setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "ERROR").upper())
    try:
        if current_platform.is_cpu():
            # Lest it touches a GPU, vLLM first looks at a model's class in another process, which takes it 5 s.
            for name in architectures(model):
                if known := ModelRegistry.models.get(name):
                    ModelRegistry.register_model(name, known.load_model_cls())
        config = EngineArgs(**arguments).create_model_config()
        tokenizer = cached_tokenizer_from_config(config)
    except Exception as error:  # of whatever library reads them
        raise ConfigError(f"model path {model.path}: cannot be loaded: {' '.join(str(error).split())[:500]}") from error
    return ChatTemplate(tokenizer, model.chat_template_kwargs, model.reasoning_parser), config.max_model_len


def with_context(arguments: Mapping[str, Any], own_context: int, needed: int) -> dict[str, Any]:
    """Engine arguments with a context as long as is needed, at most the model's own; one that is stated stays."""
    return {"max_model_len": min(own_context, needed), **arguments}


def resolved(config: Any) -> dict[str, Any]:
    """What vLLM has made of an engine's arguments, defaults included: values of a `VllmConfig`, as JSON values."""
    found = {name: getattr(getattr(config, part), name, None) for part, names in _RESOLVED.items() for name in names}
    return {name: v if isinstance(v, (int, float, str, type(None))) else str(v) for name, v in found.items()}


def describe_engine(experiment: Experiment, name: str, personas: Personas | None) -> dict[str, Any]:
    """What an engine of the model `name` would be started with on this machine, without loading any weights.

    Imports vLLM (seconds). The files of the model are here; the personas are those of everybody.

    Returns:
        JSON values: `context` (tokens that the game needs), `own_context` (of the model), `arguments` (as `resolved`).
        None where vLLM cannot say, without the device that the model will run on for instance; why is in `unresolved`.

    Raises:
        ConfigError: if prompts do not fit the context.
    """
    model, gpus = experiment.models[name], visible_gpus()
    enter_environment(NodeRank(0, 1), gpus)
    from vllm import EngineArgs
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    on_gpu = bool(gpus) or not current_platform.is_cpu()
    arguments = engine_arguments(model, on_gpu=on_gpu, seed=experiment.seed)
    found: dict[str, Any] = dict.fromkeys(("context", "own_context", "arguments", "unresolved"))
    try:
        template, own_context = load_template(model, arguments)
    except ConfigError as error:
        return found | {"unresolved": str(error)}
    everyone = longest_traits(experiment, everybody(experiment).group_of(), personas)
    groups = [(group, traits) for group, traits in everyone if group.model == name]
    needed = game_context(experiment, template, groups)
    arguments = with_context(arguments, own_context, needed)
    stated = arguments["max_model_len"]  # -1 leaves it to vLLM
    check_room(experiment, template, groups, stated if isinstance(stated, int) and stated > 0 else own_context)
    found |= {"context": needed, "own_context": own_context}
    try:
        # As vLLM's own `LLM` does, whose defaults are those for offline batches.
        config = EngineArgs(**arguments).create_engine_config(usage_context=UsageContext.LLM_CLASS)
        get_model_loader(config.load_config)  # load_format is looked at no sooner
    except Exception as error:  # on a login node, say, whose vLLM is for GPUs that it lacks
        return found | {"unresolved": str(error)}
    return found | {"arguments": resolved(config)}
