"""GGUF and Ollama: the content of the files, and llama.cpp's continuations where it is installed."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import finished_run
from test_interop_huggingface import SAMPLE, randomised, shape
from understudy.config.model import LoraConfig, ModelConfig
from understudy.inference.generate import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.interop.export import export_run
from understudy.interop.huggingface_tokenizer import tokenizer_document
from understudy.interop.ollama import go_template, modelfile
from understudy.tokenizer import BPETokenizer, Tokenizer, gpt2_tokenizer, train_tokenizer
from understudy.tokenizer.chat import CHAT_TEMPLATE, render, with_chat_tokens
from understudy.tokenizer.huggingface import HuggingFaceTokenizer

gguf: Any = pytest.importorskip("gguf", reason="gguf comes with `pip install 'understudy[interop]'`")
SHAPES = {
    "gpt2": {"activation": "gelu_tanh"},
    "qwen3": {"n_heads": 4, "n_kv_heads": 2, "head_width": 16},
    "lfm2": {"n_heads": 4, "n_kv_heads": 2, "conv_layers": [0]},
}


def bpe(pattern: str = "gpt2") -> Tokenizer:
    return with_chat_tokens(train_tokenizer("bpe", SAMPLE, 290, pattern))


def exported(run: Any, out: Path, type: str) -> Any:
    export_run(run, "gguf", out, type)
    (path,) = out.iterdir()
    return gguf.GGUFReader(path)


def field(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


@pytest.mark.parametrize("type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("family", SHAPES)
def test_weights_and_metadata(family: str, type: str, tmp_path: Path) -> None:
    tokenizer = bpe()
    run = randomised(tmp_path / "run", shape(family, **SHAPES[family]), tokenizer)
    expected = run.model.blocks[0].mlp.down.weight.detach().clone()
    reader = exported(run, tmp_path / "out", type)
    architecture = field(reader, "general.architecture")
    assert architecture == family
    assert field(reader, f"{architecture}.context_length") == 32
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    down = tensors["blk.0.ffn_down.weight"]
    assert down.tensor_type.name.lower() == type and tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    read = torch.from_numpy(gguf.quants.dequantize(down.data, down.tensor_type).copy())
    loss = (read - expected).abs().max()
    assert loss == 0 if type == "f32" else 0 < loss < 0.01
    spelled = field(reader, "tokenizer.ggml.tokens")
    assert len(spelled) == tokenizer.vocab_size == tensors["token_embd.weight"].data.shape[0]
    assert spelled[tokenizer.special_tokens["<|im_end|>"]] == "<|im_end|>"
    assert field(reader, "tokenizer.ggml.eos_token_id") == tokenizer.special_tokens["<|im_end|>"]
    assert (
        field(reader, "tokenizer.ggml.token_type")[tokenizer.special_tokens["<|im_start|>"]] == gguf.TokenType.CONTROL
    )
    assert field(reader, "tokenizer.chat_template") == CHAT_TEMPLATE
    assert len(field(reader, "tokenizer.ggml.merges")) == len(tokenizer.merges)  # type: ignore[attr-defined]


def test_adapters_are_merged(tmp_path: Path) -> None:
    config = shape("gpt2", activation="gelu_tanh", lora=LoraConfig(rank=2, embeddings=False).model_dump())
    export_run(randomised(tmp_path / "run", config, bpe()), "gguf", tmp_path / "out", "f32")  # which compares logits


def test_a_matrix_that_blocks_do_not_divide_is_kept_in_f16(tmp_path: Path) -> None:
    run = randomised(tmp_path / "run", shape("qwen3", d_model=48, d_ff=64), bpe())
    kinds = {t.name: t.tensor_type.name for t in exported(run, tmp_path / "out", "q8_0").tensors}
    assert (kinds["blk.0.ffn_up.weight"], kinds["blk.0.ffn_down.weight"]) == ("F16", "Q8_0")


@pytest.mark.parametrize(
    "tokenizer,more,message",
    [
        (train_tokenizer("char", ["abc"]), {}, "has a character tokenizer"),
        (train_tokenizer("bpe", SAMPLE, 290, special_tokens=[]), {}, "no token that ends a text"),
        (bpe(), {"activation": "gelu"}, "model.activation 'gelu'"),
    ],
)
def test_models_without_a_gguf_form_are_refused(
    tokenizer: Tokenizer, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings = {"activation": "gelu_tanh"} | more
    run = finished_run(tmp_path / "run", shape("gpt2", vocab_size=tokenizer.vocab_size, **settings), tokenizer)
    with pytest.raises(ValueError, match=re.escape(message)):
        export_run(run, "gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Ollama. Its template language is Go's; the part that our template uses is read here.


def parse_modelfile(text: str) -> dict[str, Any]:
    """Instructions of a Modelfile; an argument may stand in three quotes over several lines."""
    fields: dict[str, Any] = {"PARAMETER": []}
    for name, quoted, plain in re.findall(r'^([A-Z]+) (?:"""(.*?)"""|([^\n]*))$', text, re.M | re.S):
        value = quoted or plain
        if name == "PARAMETER":
            key, _, of = value.partition(" ")
            fields[name].append((key, json.loads(of)))
        else:
            fields[name] = value
    return fields


def render_go(template: str, **values: Any) -> str:
    """Go's text/template, as far as the Modelfiles use it: fields, range, if with eq and ne, else, and the trimming of
    {{-."""
    template = re.sub(r"\s*\{\{- ?", "{{ ", template)
    pieces = re.split(r"\{\{ ?(.*?) ?\}\}", template)

    def skip(at: int) -> int:
        """The place of the next else or end of the same block."""
        depth = 0
        while True:
            at += 2
            if pieces[at].startswith(("if ", "range ")):
                depth += 1
            elif pieces[at] == "end":
                if not depth:
                    return at
                depth -= 1
            elif pieces[at].startswith("else") and not depth:
                return at

    def holds(condition: str, scope: dict[str, Any]) -> bool:
        relation, left, right = re.fullmatch(r"(eq|ne) (.+) \"(.*)\"", condition).groups()
        value = values["Messages"][0]["Role"] if left == "(index .Messages 0).Role" else scope[left.removeprefix(".")]
        return (value == right) == (relation == "eq")

    def run(at: int, scope: dict[str, Any]) -> tuple[str, int]:
        out = ""
        while at < len(pieces):
            piece = pieces[at]
            if at % 2 == 0:
                out += piece
            elif piece == "end" or piece.startswith("else"):
                return out, at
            elif piece.startswith("range ."):
                end = at
                for item in scope[piece.removeprefix("range .")]:
                    text, end = run(at + 1, item)
                    out += text
                at = end
            elif piece.startswith("if "):
                condition, taken = piece.removeprefix("if "), False
                while True:
                    if not taken and (condition == "" or holds(condition, scope)):
                        taken = True
                        text, at = run(at + 1, scope)
                        out += text
                    else:
                        at = skip(at)
                    if pieces[at] == "end":
                        break
                    condition = pieces[at].removeprefix("else").strip().removeprefix("if ")
            else:
                out += scope[piece.removeprefix(".")]
            at += 1
        return out, at

    return run(0, values)[0]


def test_ollamas_template_renders_as_ours(tmp_path: Path) -> None:
    tokenizer = bpe()
    run = randomised(tmp_path / "run", shape("qwen3"), tokenizer)
    export_run(run, "ollama", tmp_path / "out", "q8_0")
    modelfile_fields = parse_modelfile((tmp_path / "out" / "Modelfile").read_text())
    assert (tmp_path / "out" / modelfile_fields["FROM"]).is_file()
    assert modelfile_fields["PARAMETER"] == [("num_ctx", 32), ("stop", "<|im_end|>"), ("stop", "<|endoftext|>")]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who found\n\nthe purse?"},
        {"role": "assistant", "content": "Sam."},
        {"role": "user", "content": "Where?"},
    ]
    written = render_go(
        modelfile_fields["TEMPLATE"], Messages=[{"Role": m["role"], "Content": m["content"]} for m in messages]
    )
    assert written == tokenizer.decode(render(tokenizer, messages, reply=True).tokens)


SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FOLDING = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endfor %}"
)


def test_ollamas_template_of_another_project_renders_as_its_own() -> None:
    """A default system message appears as there; a template without a counterpart is left to Ollama."""
    document = tokenizer_document(bpe())
    tokenizer = HuggingFaceTokenizer(document, {"eos_token": "<|im_end|>"}, SMOLLM2)
    template = go_template(tokenizer)
    assert template is not None
    turns = [
        {"role": "user", "content": "Who found the purse?"},
        {"role": "assistant", "content": "Sam."},
        {"role": "user", "content": "Where?"},
    ]
    for messages in (turns, turns[:1], [{"role": "system", "content": "Be brief."}, *turns]):
        written = render_go(template, Messages=[{"Role": m["role"], "Content": m["content"]} for m in messages])
        assert written == tokenizer.decode(render(tokenizer, messages, reply=True).tokens)
    assert go_template(HuggingFaceTokenizer(document, {"eos_token": "<|im_end|>"}, FOLDING)) is None


def test_a_base_run_continues_its_prompt(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe", SAMPLE, 290)
    run = finished_run(tmp_path / "run", shape("qwen3", vocab_size=290), tokenizer)
    modelfile_fields = parse_modelfile(modelfile(run))
    assert (
        render_go(modelfile_fields["TEMPLATE"], Prompt="Who?") == "Who?"
        and ("stop", "<|im_end|>") not in modelfile_fields["PARAMETER"]
    )


# llama.cpp itself, in the interpreter that has it.

ASK = """
import json, sys
from llama_cpp import Llama
asked = json.load(sys.stdin)
model = Llama(asked["path"], n_ctx=asked["context"], verbose=False, n_threads=1, type_k=0, type_v=0, seed=0)
ids = [model.tokenize(text.encode(), add_bos=False, special=False) for text in asked["texts"]]
tokens = []
for token in model.generate(asked["prompt"], temp=0.0, repeat_penalty=1.0):
    tokens.append(token)
    if len(tokens) == asked["tokens"]:
        break
print(json.dumps({"ids": ids, "tokens": tokens}))
"""


@pytest.fixture(scope="module")
def llama() -> str:
    """An interpreter that has llama-cpp-python: this one, or that of UNDERSTUDY_LLAMA_PYTHON."""
    python = os.environ.get("UNDERSTUDY_LLAMA_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode:
        pytest.skip("llama-cpp-python is not installed; UNDERSTUDY_LLAMA_PYTHON may name an interpreter that has it")
    return python


def ask_llama(python: str, **options: Any) -> Any:
    done = subprocess.run([python, "-c", ASK], input=json.dumps(options), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


TEXTS = [*SAMPLE[:1], "don't  stop\n\n\nnow  12345 's", "naïve 数え 🙂 é\u0301", " leading", "tabs\t\tand \r\n ends  "]


def numbers_and_marks() -> list[str]:
    """Text on which the ways to split differ: long numbers, capitals after an apostrophe, marks before a line's end."""
    draw = random.Random(1)
    words = ("don't", "DON'T", "it's", "IT'S", "naïve", "(well)", "...", "数えた", "so", "  ", "\n\n", "!\n", "\t")
    return [
        " ".join(
            draw.choice([draw.choice(words), str(draw.randrange(10 ** draw.randrange(1, 9)))]) for _ in range(3000)
        )
    ]


def fuzzed(count: int = 150) -> list[str]:
    """Texts of letters of several scripts, digits, marks, blanks of all kinds and other characters that splitting depends on."""
    alphabet = (
        "0123456789" * 3
        + "aZé\u0301ßΩжשع数かな한ñ'sStTlLrReEdDmMvV019²½٣ \t\n\r\u00a0\u2028\u3000.,!?-_(<|>🙂👩\u200d💻\u200b\0"
    )
    choose = random.Random(0)
    return ["".join(choose.choices(alphabet, k=choose.randrange(1, 40))) for _ in range(count)]


def learnt(path: Path, config: ModelConfig, tokenizer: Tokenizer) -> Any:
    """A run that has learnt a text by heart, so that its choices are not close calls."""
    run = finished_run(path, config, tokenizer)
    tokens = torch.tensor(
        [(tokenizer.encode(SAMPLE[0] + " Then they all went home, one by one; it rained.\n") * 4)[:73]]
    )
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(run.model(tokens[:, :-1])[0], tokens[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return run


@pytest.mark.parametrize("vocabulary", ["ours gpt2", "ours gpt4", "gpt2"])
@pytest.mark.parametrize("family", SHAPES)
def test_llama_cpp_continues_alike(family: str, vocabulary: str, tmp_path: Path, request: Any, llama: str) -> None:
    if vocabulary == "gpt2":
        tokenizer: Tokenizer = gpt2_tokenizer(request.getfixturevalue("real_data") / "gpt2")
    else:
        pattern = vocabulary.split()[1]
        tokenizer = train_tokenizer("bpe", numbers_and_marks(), 700, pattern)
        assert isinstance(tokenizer, BPETokenizer)
        other = BPETokenizer(tokenizer.merges, "gpt4" if pattern == "gpt2" else "gpt2", tokenizer.special_tokens)
        assert [other.encode(text) for text in fuzzed()] != [tokenizer.encode(text) for text in fuzzed()], (
            "a way to split that makes no difference"
        )
    assert isinstance(tokenizer, BPETokenizer)
    config = shape(family, **SHAPES[family] | {"vocab_size": tokenizer.vocab_size, "context_length": 128})
    run = learnt(tmp_path / "run", config, tokenizer)
    export_run(run, "gguf", tmp_path / "out", "f32")
    (path,) = (tmp_path / "out").iterdir()
    prompt = tokenizer.encode(SAMPLE[0])[:8]
    answer = ask_llama(llama, path=str(path), context=128, texts=TEXTS + fuzzed(), prompt=prompt, tokens=64)
    assert answer["ids"] == [tokenizer.encode(text) for text in TEXTS + fuzzed()]
    text = tokenizer.decode(prompt)
    assert tokenizer.encode(text) == prompt
    greedy = generate_text(run.model, tokenizer, [text], 64, SamplingSettings(temperature=0.0))[0]
    assert answer["tokens"] == list(greedy.tokens)
