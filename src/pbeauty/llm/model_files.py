"""The files of a model: where they are on this machine, and whether they are those that a run began with."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pbeauty.errors import ConfigError, nearest
from pbeauty.files import read_bounded
from pbeauty.game.experiment import DEMO_MODEL, Model

_LARGEST_CONFIG = 1 << 24
"""Bytes of a config.json."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub's word on whether it has a model."""
_UNREACHABLE = ", and the hub cannot be asked"
_FILES = (".json", ".jinja", ".model", ".safetensors", ".bin", ".gguf", ".pt")
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates", "tekken.json")
_BLOCK, _BLOCKS = 1 << 20, 16
"""Bytes of a block, and how many are read of a larger file: whatever trains a model further changes all of it."""


def model_source(model: Model, base: Path = Path()) -> str:
    """What vLLM is to load: the folder of the shipped demo model, a checkpoint folder, or a hub id.

    Beside `base`, the folder of the experiment file, a folder of nearly this name is looked for where there is none.

    Raises:
        ConfigError: if the path names neither a folder with a readable checkpoint nor, as far as can be seen from
            here, a model on the hub.
    """
    folder = _folder(model.path)
    if folder.exists():
        try:
            read_bounded(folder / "config.json", _LARGEST_CONFIG)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"model path {model.path}: cannot read {folder}/config.json: {reason}") from None
        return str(folder)
    reason = ""
    if _HUB_ID.fullmatch(model.path):
        reason = _why_not_on_hub(model)
        # Without word from the hub, an id whose owner is a folder here is taken for a folder that is missing.
        if reason is None or (reason.startswith(_UNREACHABLE) and not (base / folder).parent.is_dir()):
            return model.path
    beside = (base / folder).parent
    meant = nearest(folder.name, [path.parent.name for path in beside.glob("*/config.json")])
    raise ConfigError(
        f"model path {model.path}: no such folder{meant.replace('?', f' (in {beside})?')}{reason}; "
        f"give `{DEMO_MODEL}`, a checkpoint folder, or a hub id (owner/name)"
    )


def require_files(model: Model) -> None:
    """Refuses (ConfigError) a model that neither the hub's cache nor the network has, before vLLM tries."""
    if not _folder(model.path).exists() and (reason := _why_not_on_hub(model)):
        raise ConfigError(
            f"model path {model.path}: it is not in the hub's cache on this machine{reason}; where there is a network, "
            f"`hf download {model.path}` puts it there (HF_HOME says where; all nodes must see that folder)"
        )


def check_chat_template(model: Model) -> None:
    """Refuses (ConfigError) a checkpoint folder whose tokenizer says that it has no chat template."""
    folder = _folder(model.path)
    if any((folder / name).exists() for name in _TEMPLATES):
        return
    try:
        settings = json.loads(read_bounded(folder / "tokenizer_config.json", _LARGEST_CONFIG)[0])
    except (OSError, ValueError):
        return  # not here, or not to be told
    if isinstance(settings, dict) and not settings.get("chat_template"):
        raise ConfigError(
            f"model path {model.path}: it has no chat template, which conversations need (chat_template.jinja, or "
            "`chat_template` in tokenizer_config.json); an instruction-tuned checkpoint has one"
        )


def is_here(model: Model) -> bool:
    """Whether a model's files are on this machine, in a folder or in the hub's cache."""
    return _folder(model.path).exists() or _cached(model) is not None


def architectures(model: Model) -> list[str]:
    """The names that a model's config.json gives its classes; none where that does not say."""
    names = _config(model).get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def longest_context(model: Model) -> int | None:
    """The tokens of the longest context that a model can have, from its config.json; None where that does not say."""
    config = _config(model)
    try:
        scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
        return int(config["max_position_embeddings"] * max(1, scaling.get("factor", 1)))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def cache_bytes_per_token(model: Model) -> float | None:
    """What the cache of a model takes for a token, from its config.json; None where that does not say."""
    config = _config(model)
    try:
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        bytes_each = 4 if "32" in str(config.get("dtype", config.get("torch_dtype", ""))) else 2
        return float(2 * config["num_hidden_layers"] * heads * width * bytes_each)  # a key and a value
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def weight_bytes(model: Model) -> int:
    """The size of a model's weights; 0 where they are not on this machine."""
    return sum(path.stat().st_size for kind in ("*.safetensors", "*.bin") for path in _folder(model.path).glob(kind))


def _config(model: Model) -> dict[str, Any]:
    """The config.json of a model, of one for texts and images the part for texts; empty where there is none here."""
    try:
        whole = json.loads(read_bounded(_folder(model.path) / "config.json", _LARGEST_CONFIG)[0])
    except (OSError, ValueError):
        return {}
    config = (whole.get("text_config") or whole) if isinstance(whole, dict) else {}
    return config if isinstance(config, dict) else {}


def fingerprint(model: Model) -> dict[str, str]:
    """What tells a model's weights, tokenizer and template from others under the same path.

    By file, its size and a digest of it (of a large one, of blocks from all over it); of a model from the hub its
    revision. Empty where the files are not to be seen from here.
    """
    folder = _folder(model.path)
    if not folder.exists():
        cached = _cached(model)
        return {"revision": cached.name} if cached else {}
    found = sorted(path for path in folder.iterdir() if path.suffix in _FILES)
    return {path.name: _digest(path, path.stat().st_mtime_ns) for path in found}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of files that differ between two fingerprints, with what happened to each."""
    what = {(True, False): "is gone", (False, True): "is new", (True, True): "is another"}
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return [f"{name} {what[name in before, name in now]}" for name in names]


def _folder(path: str) -> Path:
    return Path(str(importlib.resources.files("pbeauty") / "demo")) if path == DEMO_MODEL else Path(path).expanduser()


def _cached(model: Model) -> Path | None:
    """The folder in which the hub's own cache has a model, named by its revision."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.path, "config.json", revision=str(model.engine.get("revision") or "main"))
    return Path(found).parent if isinstance(found, str) else None


def _why_not_on_hub(model: Model) -> str | None:
    """Why a model cannot be had from the hub; None where it can, or may."""
    return None if _cached(model) else _answer_of_hub(model.path)


@cache
def _answer_of_hub(path: str) -> str | None:
    """Why the hub cannot give a model, None if it can; asked once in a process, since no answer takes seconds."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().model_info(path, timeout=_HUB_TIMEOUT)
    except RepositoryNotFoundError:
        return ", and the hub has no model of this name, or shows it only to those who log in (HF_TOKEN)"
    except OfflineModeIsEnabled:
        return ", and the hub's cache does not have it (HF_HUB_OFFLINE is set)"
    except Exception as error:  # of whatever library talks to the hub
        return f"{_UNREACHABLE} ({error})"
    return None


@cache
def _digest(path: Path, modified: int) -> str:
    """Size and SHA-256 of a file, or of blocks spread over it; `modified` (ns) makes sure that it is read anew."""
    size, digest = path.stat().st_size, hashlib.sha256()
    blocks = min(_BLOCKS, -(-size // _BLOCK))
    with path.open("rb") as file:
        for block in range(blocks):
            file.seek((size - _BLOCK) * block // (blocks - 1) if size > _BLOCKS * _BLOCK else block * _BLOCK)
            digest.update(file.read(_BLOCK))
    return f"{size} bytes, sha256 {digest.hexdigest()[:16]}"
