"""A finetuned run exported, and its answers there: ours, transformers' and llama.cpp's to the same questions, greedily.

    python benchmarks/exported_answers.py demo --llama PYTHON_WITH_LLAMA_CPP --out benchmarks/results/exported_answers.json

The run is exported as a Hugging Face folder and as a GGUF file, both in fp32. The questions are evenly spaced among
Hamlet's held-out ones. Prompts are rendered by each side's own chat template and tokenizer. An answer is equal if all its token ids are, up to and
with the end of the turn. Where one differs, the gap between the two likeliest logits at that place is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from plain import publish
from understudy.evaluation.tasks import find_task
from understudy.inference.generate import generate
from understudy.run import Run, load_run
from understudy.tokenizer.chat import end_ids, render

LLAMA = """
import json, sys
from llama_cpp import Llama
asked = json.load(sys.stdin)
model = Llama(asked["path"], n_ctx=asked["context"], verbose=False, n_threads=1, type_k=0, type_v=0, seed=0)
answers = []
for text, most in zip(asked["prompts"], asked["most"]):
    ids, tokens = model.tokenize(text.encode(), add_bos=False, special=True), []
    model.reset()
    for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
        tokens.append(token)
        if token in asked["ends"] or len(tokens) == most:
            break
    answers.append([ids, tokens])
print(json.dumps(answers))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--llama", help="a Python with llama-cpp-python")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = load_run(options.run)
    limit = run.config.model.context_length - options.tokens
    task = find_task("hamlet")
    prompts = [task.prompt(example) for example in task.examples("val")]
    prompts = [prompt for prompt in prompts if len(render(run.tokenizer, prompt, reply=True).tokens) <= limit]
    chosen = [prompts[number * len(prompts) // options.count] for number in range(options.count)]  # of all categories
    expected = ours(run, chosen, options.tokens)
    results: dict[str, Any] = {"questions": len(chosen), "tokens": sum(len(tokens) for _, tokens in expected)}
    with tempfile.TemporaryDirectory() as folder:
        for format in ("hf", "gguf"):
            words = [
                "-m",
                "understudy",
                "export",
                str(run.path),
                "--format",
                format,
                "--type",
                "f32",
                "--out",
                f"{folder}/{format}",
            ]
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
        sides = {"transformers": by_transformers(Path(folder) / "hf", chosen, run, options.tokens)}
        if options.llama:
            [path] = (Path(folder) / "gguf").glob("*.gguf")
            sides["llama.cpp"] = by_llama(options.llama, path, chosen, run, options.tokens)
    for side, answers in sides.items():
        equal = [theirs == mine for theirs, mine in zip(answers, expected)]
        gaps = [gap(run, *pair) for pair, same in zip(zip(expected, answers), equal) if not same]
        results[side] = {"equal": sum(equal), "gaps_where_they_part": gaps}
    publish(results, options.out)


def ours(run: Run, prompts: list[Any], most: int) -> list[tuple[list[int], list[int]]]:
    """The ids of each prompt, and of its answer."""
    encoded = [render(run.tokenizer, prompt, reply=True).tokens for prompt in prompts]
    rows = generate(run.model, encoded, most, temperature=0.0, stop_tokens=end_ids(run.tokenizer))
    return [(ids, row[len(ids) :]) for ids, row in zip(encoded, rows)]


def by_transformers(folder: Path, prompts: list[Any], run: Run, most: int) -> list[tuple[list[int], list[int]]]:
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        with torch.no_grad():
            out = model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False)
        answers.append((list(ids), out[0, len(ids) :].tolist()))
    return answers


def by_llama(python: str, path: Path, prompts: list[Any], run: Run, most: int) -> list[tuple[list[int], list[int]]]:
    texts = [run.tokenizer.decode(render(run.tokenizer, prompt, reply=True).tokens) for prompt in prompts]
    asked = {
        "path": str(path), "context": run.config.model.context_length, "prompts": texts, "most": [most] * len(texts),
        "ends": sorted(end_ids(run.tokenizer)),
    }  # fmt: skip
    done = subprocess.run([python, "-c", LLAMA], input=json.dumps(asked), capture_output=True, text=True, check=True)
    return [(ids, tokens) for ids, tokens in json.loads(done.stdout)]


@torch.no_grad()
def gap(run: Run, mine: tuple[list[int], list[int]], theirs: tuple[list[int], list[int]]) -> float | str:
    """The gap between the two likeliest logits where the answers part."""
    if mine[0] != theirs[0]:
        return "the prompts differ"
    same = next((n for n, (a, b) in enumerate(zip(mine[1], theirs[1])) if a != b), None)
    if same is None:
        return "one is shorter"
    top = run.model(torch.tensor([[*mine[0], *mine[1][:same]]]))[0, -1].topk(2).values
    return float(top[0] - top[1])


if __name__ == "__main__":
    main()
