"""Made-up checkpoints for vLLM that say given phrases, whatever they are asked.

A model of one layer whose attention and MLP are zero: which token comes next depends on the last one alone. Each piece
of a phrase is a token of its own and leads to the piece after it; any other token, such as the last of a prompt, leads
to the first piece of each phrase with equal probability.
"""

from __future__ import annotations

import json
from pathlib import Path

END = "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PADDING = 64
"""Token ids that the model has beyond those of its tokenizer; the piece -1 is the first of them."""
_WIDTH = 128


def make(folder: Path, *phrases, template=CHATML, special=(), eos=END, ends=END, positions=4096) -> Path:
    """Writes a checkpoint, and returns its folder.

    Args:
        folder: to be made.
        phrases: lists of pieces, each piece in one of them alone.
        template: the chat template.
        special: pieces that are special tokens, which a decoder leaves out.
        eos: the token that ends a reply by the model's own settings.
        ends: the token that follows each phrase.
        positions: the context of the model.
    """
    import torch
    import transformers
    from safetensors.torch import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t in {END: 0, "<|im_start|>": 0, eos: 0, ends: 0}]
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in special])
    pieces = [piece for phrase in phrases for piece in phrase if piece != -1]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces if piece not in special])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos)
    fast.chat_template = template
    fast.save_pretrained(folder)

    def token(piece):
        return len(fast) if piece == -1 else fast.convert_tokens_to_ids(piece)

    state = torch.zeros(len(fast) + PADDING, dtype=torch.int64)
    leads_to = torch.zeros(len(fast) + PADDING, _WIDTH)
    states = iter(range(1, _WIDTH))
    for phrase in phrases:
        before = 0
        for piece in [*phrase, ends]:
            leads_to[token(piece), before] = 5.0
            if piece != ends:
                state[token(piece)] = before = next(states)
    nothing = torch.zeros(_WIDTH, _WIDTH)
    layer = {f"self_attn.{name}_proj": nothing for name in "qkvo"}
    layer |= {f"mlp.{name}_proj": nothing for name in ("gate", "up", "down")}
    layer |= {f"{name}_layernorm": torch.ones(_WIDTH) for name in ("input", "post_attention")}
    weights = {f"model.layers.0.{name}.weight": values.clone() for name, values in layer.items()}
    weights |= {
        "model.embed_tokens.weight": torch.nn.functional.one_hot(state, _WIDTH).float(),
        "model.norm.weight": torch.ones(_WIDTH),
        "lm_head.weight": leads_to,
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(state)}
    config |= {"hidden_size": _WIDTH, "intermediate_size": _WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4}
    config |= {"max_position_embeddings": positions, "tie_word_embeddings": False, "dtype": "float32"}
    config |= {"eos_token_id": fast.convert_tokens_to_ids(eos), "bos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
