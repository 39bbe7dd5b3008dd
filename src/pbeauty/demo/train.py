"""Trains the demo participant: a tiny Llama, from scratch, on synthetic games played as people played them.

    python -m pbeauty.demo.train --out FOLDER [--seed N] [--steps N] [--minutes M]

Everything that is drawn comes from the seed; the number of steps, not the time, ends the training, so that one seed
gives one model on one kind of machine and library version. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.demo.conversations import Turn, conversation, drill

log = logging.getLogger("pbeauty.demo.train")

VOCABULARY = 768
CONTEXT = 4096
"""Tokens that the shipped configuration allows; training itself sees conversations of up to `LONGEST`."""
LONGEST = 1536
STEPS = 1800
BATCH_TOKENS = 3072
CHUNK = 1024
"""Conversations drawn at a time; they are sorted by length in order to pad little."""
EAGER_BELOW = 320
"""Conversations of fewer tokens train faster with plain attention than with the fused kernel, on a CPU."""
LENGTH_STEP = 32
PEAK_RATE = 1e-2
DRILL = 1000
"""Steps of the last part of training, on the beginnings of classic games."""
DRILL_RATE = 4e-3
SHORT_REPLY = 12
"""Replies of fewer tokens (bare numbers) weigh `SHORT_WEIGHT` in the loss: they are most of what the game reads."""
SHORT_WEIGHT = 4.0
STATES = "My number:"
"""What a step-by-step reply states its number after, which weighs as much as a bare one."""
CONTEXT_WEIGHT = 0.15
"""Loss weight of what others say, which teaches the language of the prompts and how to copy numbers."""

SHARPENING = 1.15
"""Factor on the logits of the saved model: so small a model leaves too much probability to stray tokens."""

START, END = "<|start|>", "<|end|>"
HEADERS = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
PAD = "<|pad|>"
SPECIAL = (PAD, START, END, *HEADERS.values())

# No trimming and no line breaks: a rendered conversation is then a token prefix of every longer one.
CHAT_TEMPLATE = (
    "{{- '" + START + "' -}}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '" + END + "' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + HEADERS["assistant"] + "' -}}{%- endif -%}"
)

CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# The demo participant

A Llama of {parameters:,} parameters that plays the p-beauty contest in the words of `pbeauty`'s prompts. It is a
stand-in: with it the real engine plays the real game, from chat template to extraction, on any laptop.

**It is not evidence about people, and none about language models.** It repeats a distribution that was put into its
training data. It does not reason: the sentences of its step-by-step replies are templates, and their arithmetic is
often slightly wrong. It was not taught to play differently for different system prompts or personas; differences
between them are accidents of training. It knows nothing but this game.

## Training

- Script: `python -m pbeauty.demo.train --out FOLDER --seed {seed} --steps {steps} --drill {drill}`, from scratch, on
  the CPU. The last {drill} steps are mostly on the beginnings of classic games.
- Data: synthetic conversations only, drawn while training (`pbeauty.demo.conversations`): {conversations:,} of them,
  {tokens:,} tokens, built with the project's own prompts over random games (multiplier, offset, range, mean or median,
  announcements, number of players). Guesses are drawn from a mixture of level-k reasoners with noise whose means are
  solved from the human means of R. Nagel, "Unraveling in Guessing Games: An Experimental Study", American Economic
  Review 85 (1995), 1313-1326: the first round at p = 1/2, 2/3 and 4/3, and the fall from round to round. No text or
  record of any person, and no output of any other model, is part of it.
- Time: {minutes:.1f} minutes on {threads} threads; last loss {loss:.3f}.

## What it was made to do

On the range 0 to 100, sampled at temperature 1, in both styles of reply: means near the published ones in the first
round (27 at p = 1/2, 37 at 2/3, 60 at 4/3), a fall (above p = 1 a rise) over the rounds near people's, guesses that
follow the announced numbers, 99 of 100 replies readable. `tests/test_demo.py` checks it. It also answers the
project's retry and extraction messages. Games far from these (very long ones, unusual ranges) it plays worse.

## Format

{vocabulary} byte-level BPE tokens, every digit a token of its own; {layers} layers of {hidden}; {context} positions;
weights in bfloat16. Turns are `<|system|>`, `<|user|>` or `<|assistant|>`, the text, `<|end|>`, after one `<|start|>`;
`<|end|>` ends a reply.

Licence: Apache-2.0.
"""


@dataclass(frozen=True)
class Batch:
    """Token ids and loss weights, [conversation, position], padded on the right with weight 0."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


# --- tokens ------------------------------------------------------------------------------------------------


def train_tokenizer(rng: np.random.Generator, conversations: int = 6000) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` with single digits, trained on that many conversations."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (turn.content for _ in range(conversations) for turn in conversation(rng))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Any, turns: Sequence[Turn]) -> tuple[list[int], list[float]]:
    """The token ids of a conversation, as the chat template renders it, and their loss weights."""
    header = {role: tokenizer.token_to_id(token) for role, token in HEADERS.items()}
    ids, weights = [tokenizer.token_to_id(START)], [0.0]
    end = tokenizer.token_to_id(END)
    for turn in turns:
        said = [*tokenizer.encode(turn.content, add_special_tokens=False).ids, end]
        weight = SHORT_WEIGHT if len(said) < SHORT_REPLY else 1.0
        if not turn.learn:
            weight = 0.0 if turn.role == "assistant" else CONTEXT_WEIGHT
        ids += [header[turn.role], *said]
        weights += [0.0, *[weight] * len(said)]
        if turn.learn and STATES in turn.content:
            stated = len(turn.content.rpartition(STATES)[2]) + 1  # a token for each character, and the end
            weights[-stated:] = [SHORT_WEIGHT] * stated
    return ids[:LONGEST], weights[:LONGEST]


def batches(
    rng: np.random.Generator, tokenizer: Any, source: Callable[[np.random.Generator], list[Turn]]
) -> Iterator[Batch]:
    """Batches of `BATCH_TOKENS` tokens, without end: conversations from `source` of like length, in random order.

    Lengths are padded to multiples of `LENGTH_STEP` and batches are full, so that few shapes occur: the CPU's matrix
    kernels are generated anew for each. Conversations that fill no batch wait for the next chunk.
    """
    waiting: dict[int, list[tuple[list[int], list[float]]]] = {}
    while True:
        ready = []
        for _ in range(CHUNK):
            pair = encode(tokenizer, source(rng))
            length = -(-len(pair[0]) // LENGTH_STEP) * LENGTH_STEP
            group = waiting.setdefault(length, [])
            group.append(pair)
            if len(group) == max(BATCH_TOKENS // length, 1):
                ready.append((length, waiting.pop(length)))
        for index in rng.permutation(len(ready)):
            length, group = ready[int(index)]
            ids = np.zeros((len(group), length), np.int64)
            weights = np.zeros((len(group), length), np.float32)
            for row, (tokens, weight) in enumerate(group):
                ids[row, : len(tokens)], weights[row, : len(tokens)] = tokens, weight
            yield Batch(ids, weights)


# --- model -------------------------------------------------------------------------------------------------


def new_model(generator: Any, tokenizer: Any) -> Any:
    """The untrained `LlamaForCausalLM`, every weight matrix drawn from `generator` (a `torch.Generator`)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.token_to_id(PAD),
        bos_token_id=tokenizer.token_to_id(START),
        eos_token_id=tokenizer.token_to_id(END),
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.05, generator=generator)
    return model


def started_from(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder that `save` wrote, to be trained further."""
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight /= SHARPENING
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def optimizers(model: Any) -> list[Any]:
    """Muon for the matrices of the layers, which learns in half the steps of AdamW here; AdamW for the rest."""
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(progress: float) -> float:
    """The learning rate as a share of its peak: a short linear rise, then half a cosine down to nothing."""
    warm = 0.03
    if progress < warm:
        return (progress + 1e-3) / warm
    return 0.5 * (1 + math.cos(math.pi * min((progress - warm) / (1 - warm), 1.0)))


def train(
    model: Any, data: Iterator[Batch], steps: int, minutes: float | None, peak: float = PEAK_RATE
) -> dict[str, float]:
    """Trains `model` in place; returns conversations and tokens seen, minutes taken and the last mean loss."""
    import torch
    from torch.nn import functional

    optimizing = optimizers(model)
    started, seen, conversations, mean_loss = time.monotonic(), 0, 0, math.nan
    model.train()
    for step in range(steps):
        elapsed = (time.monotonic() - started) / 60
        progress = max(step / steps, elapsed / minutes if minutes else 0.0)
        if progress >= 1:
            break
        batch = next(data)
        ids, weights = torch.from_numpy(batch.ids), torch.from_numpy(batch.weights)
        model.set_attn_implementation("eager" if ids.shape[1] < EAGER_BELOW else "sdpa")
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizing:
            for group in optimizer.param_groups:
                group["lr"] = peak * rate(progress)
            optimizer.step()
            optimizer.zero_grad()
        seen, conversations = seen + ids.numel(), conversations + len(ids)
        mean_loss = loss.item() if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            log.info("step %d/%d  loss %.4f  %.0f tokens/s  %.0f s", step, steps, mean_loss, seen / seconds, seconds)
    minutes_taken = (time.monotonic() - started) / 60
    return {"conversations": conversations, "tokens": seen, "minutes": minutes_taken, "loss": mean_loss}


# --- the folder --------------------------------------------------------------------------------------------


def save(out: Path, model: Any, tokenizer: Any, seed: int, steps: int, drill: int, figures: dict[str, float]) -> None:
    """Writes the checkpoint folder: weights (bfloat16), configuration, tokenizer, chat template, model card."""
    import torch
    from transformers import PreTrainedTokenizerFast

    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        model.model.norm.weight *= SHARPENING
    model.to(torch.bfloat16).save_pretrained(out)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=list(HEADERS.values()),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(out)
    # The name that every release of transformers knows, instead of the newest one's.
    settings = out / "tokenizer_config.json"
    named = json.loads(settings.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    config = model.config
    card = CARD.format(
        parameters=model.num_parameters(),
        seed=seed,
        steps=steps,
        drill=drill,
        threads=torch.get_num_threads(),
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        context=config.max_position_embeddings,
        **{name: int(value) if name in ("conversations", "tokens") else value for name, value in figures.items()},
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m pbeauty.demo.train", description="Train the demo participant.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=1995, help="seed of data and weights (default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of training (default %(default)s)")
    parser.add_argument("--drill", type=int, default=DRILL, help="steps of the last part (default %(default)s)")
    parser.add_argument("--start", type=Path, help="a folder written by this script: only the last part, from there")
    parser.add_argument(
        "--minutes", type=float, help="finish within about this time; the result then depends on the machine's speed"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and saves; the exit code is 2 where transformers or torch is missing."""
    options = arguments(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        log.error("training needs torch and transformers, which come with vLLM: %s", error)
        return 2
    for_tokens, for_games, for_drill = np.random.default_rng(options.seed).spawn(3)
    if options.start:
        model, tokenizer = started_from(options.start)
        figures = {"conversations": 0, "tokens": 0, "minutes": 0.0}
    else:
        tokenizer = train_tokenizer(for_tokens)
        model = new_model(torch.Generator().manual_seed(options.seed), tokenizer)
        log.info("%d parameters, %d tokens", model.num_parameters(), tokenizer.get_vocab_size())
        figures = train(model, batches(for_games, tokenizer, conversation), options.steps, options.minutes)
    drilled = train(model, batches(for_drill, tokenizer, drill), options.drill, options.minutes, DRILL_RATE)
    figures = {name: figures.get(name, 0) + value for name, value in drilled.items() if name != "loss"}
    figures["loss"] = drilled["loss"]
    save(options.out, model, tokenizer, options.seed, options.steps, options.drill, figures)
    log.info("%s: %.1f minutes", options.out, figures["minutes"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
