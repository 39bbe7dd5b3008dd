"""Trains the demo participant: a tiny Llama, from scratch, on synthetic games played as people played them.

    python -m pbeauty.demo.train --out FOLDER [--seed N] [--steps N]

Everything that is drawn comes from the seed, so that one seed gives one model on one kind of machine and library
version. Progress goes to standard error. The folder gets all that vLLM and transformers load; this folder's README.md
describes the model.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.demo.conversations import Turn, conversation

log = logging.getLogger("pbeauty.demo.train")

VOCABULARY = 768
CONTEXT = 4096
"""Tokens that the saved configuration allows; training itself sees conversations of up to `LONGEST`."""
LONGEST = 1536
STEPS = 2600
CLASSIC_FROM, CLASSIC = 0.6, 0.67
"""From that share of the steps on, that share of the conversations are beginnings of classic games."""
BATCH_TOKENS = 3072
CHUNK = 1024
"""Conversations drawn at a time; they are sorted by length in order to pad little."""
LENGTH_STEP = 32
EAGER_BELOW = 320
"""Conversations of fewer tokens train faster with plain attention than with the fused kernel, on a CPU."""
PEAK_RATE = 1e-2
SHORT_REPLY, SHORT_WEIGHT = 12, 4.0
"""Replies of fewer tokens (bare numbers) weigh that much in the loss: they are most of what the game reads."""
STATES = "My number:"
"""What a step-by-step reply states its number after, which weighs as much as a bare one."""
CONTEXT_WEIGHT = 0.15
"""Loss weight of what others say, which teaches the language of the prompts and how to copy numbers."""
SHARPENING = 1.15
"""Factor on the logits of the saved model: so small a model leaves too much probability to stray tokens."""

START, END, PAD = "<|start|>", "<|end|>", "<|pad|>"
HEADERS = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
# No trimming and no line breaks: a rendered conversation is then a token prefix of every longer one.
CHAT_TEMPLATE = (
    "{{- '<|start|>' -}}{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(rng: np.random.Generator, conversations: int = 6000) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` with single digits, trained on that many conversations."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END, *HEADERS.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((turn.content for _ in range(conversations) for turn in conversation(rng)), trainer)
    return tokenizer


def encode(tokenizer: Any, turns: Sequence[Turn]) -> tuple[list[int], list[float]]:
    """The token ids of a conversation, as the chat template renders it, and their loss weights."""
    header = {role: tokenizer.token_to_id(token) for role, token in HEADERS.items()}
    ids, weights = [tokenizer.token_to_id(START)], [0.0]
    for turn in turns:
        content = [*tokenizer.encode(turn.content, add_special_tokens=False).ids, tokenizer.token_to_id(END)]
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

    A batch has some `BATCH_TOKENS` tokens. Lengths are padded to multiples of `LENGTH_STEP`, so that few shapes occur:
    the CPU's matrix kernels are generated anew for each. Conversations that fill no batch wait for the next chunk.
    """
    waiting: dict[int, list[tuple[list[int], list[float]]]] = {}
    done = 0
    while True:
        ready = []
        for _ in range(CHUNK):
            pair = encode(tokenizer, conversation(rng, CLASSIC if done >= CLASSIC_FROM * steps else 0.0))
            length = -(-len(pair[0]) // LENGTH_STEP) * LENGTH_STEP
            group = waiting.setdefault(length, [])
            group.append(pair)
            if len(group) == max(BATCH_TOKENS // length, 1):
                ready.append((length, waiting.pop(length)))
        for index in rng.permutation(len(ready)):
            length, group = ready[int(index)]
            ids, weights = np.zeros((len(group), length), np.int64), np.zeros((len(group), length), np.float32)
            for row, (tokens, weight) in enumerate(group):
                ids[row, : len(tokens)], weights[row, : len(tokens)] = tokens, weight
            yield ids, weights
            done += 1
            if done == steps:
                return


def new_model(seed: int, tokenizer: Any) -> Any:
    """The untrained `LlamaForCausalLM`, its weight matrices drawn from `seed`."""
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
    model, generator = LlamaForCausalLM(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.05, generator=generator)
    return model


def rate(progress: float) -> float:
    """The learning rate as a share of its peak: a short linear rise, then half a cosine down to nothing."""
    warm = 0.03
    return (progress + 1e-3) / warm if progress < warm else (1 + math.cos(math.pi * (progress - warm) / (1 - warm))) / 2


def train(model: Any, data: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]], steps: int) -> None:
    """Trains `model` in place.

    Muon trains the matrices of the layers, in half the steps that AdamW needs here, and AdamW the rest.
    """
    import torch
    from torch.nn import functional

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
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
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE * rate(step / steps)
            optimizer.step()
            optimizer.zero_grad()
        mean_loss = loss.item() if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            log.info("step %d/%d  loss %.4f  %.0f s", step + 1, steps, mean_loss, time.monotonic() - started)


def save(out: Path, model: Any, tokenizer: Any) -> None:
    """Writes the checkpoint folder: weights (bfloat16), configuration, tokenizer, chat template."""
    import torch
    from transformers import PreTrainedTokenizerFast

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


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and saves."""
    parser = argparse.ArgumentParser(prog="python -m pbeauty.demo.train", description="Train the demo participant.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=1995, help="seed of data and weights (default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of training (default %(default)s)")
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    for_tokens, for_games = np.random.default_rng(options.seed).spawn(2)
    tokenizer = train_tokenizer(for_tokens)
    model = new_model(options.seed, tokenizer)
    log.info("%d parameters, %d tokens", model.num_parameters(), tokenizer.get_vocab_size())
    train(model, batches(for_games, tokenizer, options.steps), options.steps)
    save(options.out, model, tokenizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
