"""Trains the demo participant: a tiny Llama, from scratch, on synthetic games played as people played them.

    python -m pbeauty.demo.train --out FOLDER [--seed N] [--steps N]

Everything that is drawn comes from the seed, so that one seed gives one model on one kind of machine and library
version. The tokenizer, with its chat template, and the model's shape are those of this folder, whose README.md
describes the model. FOLDER gets all that vLLM and transformers load. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.demo.conversations import Turn, conversation

HERE = Path(__file__).parent
LONGEST = 1536
"""Tokens of a conversation that are learned from; the model's context is longer."""
STEPS = 2600
CLASSIC_FROM, CLASSIC = 0.6, 0.67
"""From that share of the steps on, that share of the conversations are beginnings of classic games."""
BATCH_TOKENS = 3072
CHUNK = 1024
"""Conversations drawn at a time, and sorted by length in order to pad little."""
LENGTH_STEP = 32
EAGER_BELOW = 320
"""Conversations of fewer tokens train faster with plain attention than with the fused kernel, on a CPU."""
WARM_UP = 0.03
"""Share of the steps in which the learning rate rises; it then falls like half a cosine."""
PEAK_RATE = 1e-2
SHORT_REPLY, SHORT_WEIGHT = 12, 4.0
"""Replies of fewer tokens (bare numbers) weigh that much in the loss: they are most of what the game reads."""
STATES = "My number:"
"""What a step-by-step reply states its number after, which weighs as much as a bare one."""
CONTEXT_WEIGHT = 0.15
"""Loss weight of what others say, which teaches the language of the prompts and how to copy numbers."""
SHARPENING = 1.15
"""Factor on the logits of the saved model: so small a model leaves too much probability to stray tokens."""

START, END = "<|start|>", "<|end|>"
HEADERS = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}


def encode(tokenizer: Any, turns: Sequence[Turn]) -> tuple[list[int], list[float]]:
    """The token ids of a conversation, as the chat template renders it, and their loss weights."""
    start, end, *headers = tokenizer.convert_tokens_to_ids([START, END, *HEADERS.values()])
    header = dict(zip(HEADERS, headers, strict=True))
    ids, weights = [start], [0.0]
    for turn in turns:
        content = [*tokenizer.encode(turn.content, add_special_tokens=False), end]
        weight = SHORT_WEIGHT if len(content) < SHORT_REPLY else 1.0
        if not turn.learn:
            weight = 0.0 if turn.role == "assistant" else CONTEXT_WEIGHT
        ids += [header[turn.role], *content]
        weights += [0.0, *[weight] * len(content)]
        if turn.learn and STATES in turn.content:
            stated = len(turn.content.rpartition(STATES)[2]) + 1  # a token for each character, and the end
            weights[-stated:] = [SHORT_WEIGHT] * stated
    return ids[:LONGEST], weights[:LONGEST]


def batches(
    rng: np.random.Generator, tokenizer: Any, steps: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """`steps` batches of token ids and loss weights, [conversation, position], padded on the right with weight 0.

    A batch has some `BATCH_TOKENS` tokens, of conversations of about one length. Lengths are padded to multiples of
    `LENGTH_STEP`, so that few shapes occur: the CPU's matrix kernels are generated anew for each.
    """
    done = 0
    while True:
        classic = CLASSIC if done >= CLASSIC_FROM * steps else 0.0
        pairs = sorted(
            (encode(tokenizer, conversation(rng, classic)) for _ in range(CHUNK)), key=lambda pair: len(pair[0])
        )
        batch_of = np.cumsum([len(ids) for ids, _ in pairs]) // BATCH_TOKENS
        for batch in rng.permutation(np.unique(batch_of)):
            group = [pairs[index] for index in np.flatnonzero(batch_of == batch)]
            length = -(-len(group[-1][0]) // LENGTH_STEP) * LENGTH_STEP
            ids, weights = np.zeros((len(group), length), np.int64), np.zeros((len(group), length), np.float32)
            for row, (tokens, weight) in enumerate(group):
                ids[row, : len(tokens)], weights[row, : len(tokens)] = tokens, weight
            yield ids, weights
            done += 1
            if done == steps:
                return


def new_model(seed: int) -> Any:
    """The untrained `LlamaForCausalLM`, its weight matrices drawn from `seed`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig.from_pretrained(HERE)).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.05, generator=generator)
    return model


def train(model: Any, data: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]], steps: int) -> None:
    """Trains `model` in place.

    Muon trains the matrices of the layers, in half the steps that AdamW needs here, and AdamW the rest.
    """
    import torch
    from torch.nn import functional
    from transformers import get_cosine_schedule_with_warmup

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [get_cosine_schedule_with_warmup(optimizer, WARM_UP * steps, steps) for optimizer in optimizers]
    started, mean_loss = time.monotonic(), math.nan
    model.train()
    for step, arrays in enumerate(data):
        ids, weights = map(torch.from_numpy, arrays)
        model.set_attn_implementation("eager" if ids.shape[1] < EAGER_BELOW else "sdpa")
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in schedules:
            schedule.step()
        mean_loss = loss.item() if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            took = time.monotonic() - started
            print(f"step {step + 1}/{steps}  loss {mean_loss:.4f}  {took:.0f} s", file=sys.stderr, flush=True)


def save(out: Path, model: Any, tokenizer: Any) -> None:
    """Writes the checkpoint folder: weights (bfloat16), configuration, tokenizer, chat template."""
    import torch

    with torch.no_grad():
        model.model.norm.weight *= SHARPENING
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and saves."""
    parser = argparse.ArgumentParser(prog="python -m pbeauty.demo.train", description="Train the demo participant.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=1995, help="seed of data and weights (default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of training (default %(default)s)")
    options = parser.parse_args(argv)
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(HERE), new_model(options.seed)
    train(model, batches(np.random.default_rng(options.seed), tokenizer, options.steps), options.steps)
    save(options.out, model, tokenizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
