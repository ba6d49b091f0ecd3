"""The llama.cpp side of decode.py, run by a Python that has llama-cpp-python and gguf.

    python llama_side.py THREADS NEW_TOKENS PROMPT_AS_JSON

Writes the GPT-2 124M shape with random weights as GGUF in f32, f16 and q8_0, loads all three, prints its version, and
then for each line of standard input that names one of them the tokens a second of a greedy answer.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

LAYERS, WIDTH, HEADS, CONTEXT, VOCAB = 12, 768, 12, 1024, 50257


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a GPT-2's tensors in GGUF; the head shares the embedding."""
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCAB, WIDTH), "position_embd.weight": (CONTEXT, WIDTH),
        "output_norm.weight": (WIDTH,), "output_norm.bias": (WIDTH,),
    }  # fmt: skip
    matrices = {
        "attn_qkv": (3 * WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH),
        "ffn_up": (4 * WIDTH, WIDTH), "ffn_down": (WIDTH, 4 * WIDTH),
    }  # fmt: skip
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            found |= {f"blk.{layer}.{name}.{part}": (WIDTH,) for part in ("weight", "bias")}
        for name, shape in matrices.items():
            found |= {f"blk.{layer}.{name}.weight": shape, f"blk.{layer}.{name}.bias": shape[:1]}
    return found


def write(path: Path, kind: gguf.GGMLQuantizationType) -> None:
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(4 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(VOCAB)
    for name, shape in shapes().items():
        matrix = len(shape) == 2
        values = random.normal(0, 0.02, shape) if matrix else np.full(shape, float("norm.weight" in name))
        values = values.astype(np.float32)
        if matrix and name != "position_embd.weight":
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    threads, new, prompt = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("f32", "f16", "q8_0"):
            path = Path(folder) / f"{name}.gguf"
            write(path, gguf.GGMLQuantizationType[name.upper()])
            models[name] = llama_cpp.Llama(
                str(path), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, use_mmap=False, verbose=False
            )
    print(json.dumps({"version": llama_cpp.__version__}), flush=True)
    for line in sys.stdin:
        model = models[line.strip()]
        model.reset()
        start = time.perf_counter()
        for found, _ in enumerate(model.generate(prompt, temp=0.0, repeat_penalty=1.0, reset=True), 1):
            if found == new:
                break
        print(json.dumps({"tokens_per_second": new / (time.perf_counter() - start)}), flush=True)


if __name__ == "__main__":
    main()
