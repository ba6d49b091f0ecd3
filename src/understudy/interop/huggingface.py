"""Runs as Hugging Face's folders, which `transformers`, vLLM and others read without code of ours, and back.

Written: config.json, model.safetensors (in shards where it is large), the tokenizer's two files,
generation_config.json and a model card; or, with adapters apart, base/ and adapter/, the latter in PEFT's format. Not
here: names of weights (names.py), which options exist there (shapes.py), and where a run is made of what was read
(imports.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import ModelConfig
from understudy.interop.huggingface_tokenizer import config_document as tokenizer_config
from understudy.interop.huggingface_tokenizer import tokenizer_document, write_together
from understudy.interop.model_card import model_card
from understudy.interop.names import COLUMNS, TABLES, from_theirs, rows_of, to_theirs
from understudy.interop.proof import EXACT, Proof
from understudy.interop.shapes import (
    FAMILIES,
    config_document,
    gives_scores,
    model_config,
    plain_shape,
    plain_weights,
    shape_from_document,
)
from understudy.run import read_json
from understudy.tokenizer import END_OF_TEXT
from understudy.tokenizer.chat import CHAT_TOKENS, END, START, end_ids, render, speaks_chat

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.run import Run
    from understudy.tokenizer import Tokenizer

SHARD_SIZE = "5GB"
SAID = "Sam's 3 cats:\n\n  they don't purr!  "
"""A text to compare tokenizers by, as far as they know its characters."""


def require(*modules: str) -> None:
    """Refuse to go on without the libraries of the extra `interop`.

    Raises:
        ValueError: one is not installed.
    """
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise ValueError(f"{module} is not installed; install it with `pip install 'understudy[interop]'`")


# ---- out ------------------------------------------------------------------------------------------------------------


def write_huggingface(run: Run, proof: Proof, folder: Path) -> list[str]:
    """Write a run's model, adapters merged, and return what was found when it was read again."""
    from understudy.model import merge_lora

    require("transformers")
    merge_lora(run.model)
    _write_model(run, folder)
    return [_read_by_transformers(run, proof, folder)]


def write_peft(run: Run, proof: Proof, folder: Path, out: Path) -> list[str]:
    """Write base/, the model without its adapters, and adapter/ in PEFT's format.

    Args:
        out: where the folder will be in the end, by which adapter/ names its base.

    Raises:
        ValueError: the run has no adapters.
    """
    from safetensors.torch import save_file

    lora = run.config.model.lora
    if lora is None:
        raise ValueError(f"the run {run.path} has no adapters; leave --adapter out")
    require("transformers", "peft")
    tensors, targets = _adapters(run)
    said: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    if gives_scores(run):  # where PEFT counts the head as trained
        said = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
        tensors["base_model.model.score.weight"] = run.model.get_parameter("score.weight").detach().clone()
    adapter = folder / "adapter"
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    write_together(adapter, {"adapter_config.json": {
        "peft_type": "LORA", **said, "base_model_name_or_path": (out / "base").as_posix(), "r": lora.rank,
        "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": targets, "bias": "none",
        "fan_in_fan_out": run.config.model.family == "gpt2", "inference_mode": True,
    }})  # fmt: skip
    _without_adapters(run.model)
    _write_model(run, folder / "base")
    return [_read_by_transformers(run, proof, folder / "base", adapter)]


def _write_model(run: Run, folder: Path) -> None:
    from huggingface_hub import save_torch_state_dict

    config = plain_shape(run)
    weights = plain_weights(run, config)
    if config.score_head:
        weights.pop("head.weight", None)  # of its own, and not read there
    folder.mkdir(exist_ok=True)
    save_torch_state_dict(to_theirs(weights, config, "huggingface"), folder, max_shard_size=SHARD_SIZE)
    tokenizer, ends = run.tokenizer, sorted(end_ids(run.tokenizer))
    pad = (END_OF_TEXT if tokenizer.eot_id is not None else START) if config.score_head else None
    tokens = {
        "bos_token_id": tokenizer.eot_id,
        "eos_token_id": tokenizer.special_tokens.get(END, tokenizer.eot_id),
        "pad_token_id": None if pad is None else tokenizer.special_tokens[pad],
    }
    said = tokenizer_config(tokenizer, config.context_length) | ({} if pad is None else {"pad_token": pad})
    documents = {
        "config.json": config_document(config) | tokens,
        "tokenizer.json": tokenizer_document(tokenizer),
        "tokenizer_config.json": said,
    }
    if not config.score_head:
        documents["generation_config.json"] = tokens | {"eos_token_id": ends or None, "do_sample": True}
    write_together(folder, documents)
    (folder / "README.md").write_text(model_card(run, "transformers"), encoding="utf-8")


def _adapters(run: Run) -> tuple[dict[str, Tensor], list[str]]:
    """The adapters under PEFT's names, and the layers that have some. Where one of our matrices is several of theirs,
    all have the same A, and each its rows of B."""
    table = {row.ours: row for row in TABLES[run.config.model.family]}
    config, tensors = plain_shape(run), {}
    targets: set[str] = set()
    weights = {name: p.detach() for name, p in run.model.named_parameters() if name.endswith(("lora_a", "lora_b"))}
    for name, low in weights.items():
        layer, _, which = name.rpartition(".")
        number = layer.split(".")[1]
        row = table[layer.replace(f".{number}.", ".N.") + ".weight"]
        names = [each.removesuffix(".T").removesuffix(".weight") for each in COLUMNS["huggingface"](row)]
        targets.update(".".join(each.split(".")[-2:]) for each in names)
        sizes = rows_of(row.kind, config.resolve(), len(low)) if which == "lora_b" else ()
        parts = low.split(sizes) if sizes else [low] * len(names)
        for each, part in zip(names, parts):
            key = f"base_model.model.{each.replace('.N.', f'.{number}.')}.{which.replace('lora_a', 'lora_A').replace('lora_b', 'lora_B')}.weight"
            tensors[key] = part.clone().contiguous()
    return tensors, sorted(targets)


def _without_adapters(model: Any) -> None:
    """Let every adapter add nothing, and merge that: the layers as they were before they were adapted."""
    from understudy.model import merge_lora

    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            parameter.data.zero_()
    merge_lora(model)


# ---- and read again -------------------------------------------------------------------------------------------------


def _read_by_transformers(run: Run, proof: Proof, folder: Path, adapter: Path | None = None) -> str:
    """Compare what transformers (and PEFT) make of a folder with the run."""
    import torch
    import transformers

    reader = f"transformers {transformers.__version__}"
    scores = gives_scores(run)
    kind = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModelForCausalLM
    model: Any = kind.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        import peft

        reader += f" and PEFT {peft.__version__}"
        model = peft.PeftModel.from_pretrained(model, adapter)
    model.eval()
    difference = proof.compare(lambda prompt: model(prompt).logits[0], EXACT, reader)
    _same_tokens(run.tokenizer, transformers.AutoTokenizer.from_pretrained(folder))
    what = "scores" if scores else "logits"
    return f"read by {reader}: the same tokens, and {what} within {difference:.1g} of ours"


def _same_tokens(own: Tokenizer, other: Any) -> None:
    text = "".join(character for character in SAID if _knows(own, character))
    assert other(text)["input_ids"] == own.encode(text), "the tokenizer that was written gives other ids"
    if speaks_chat(own):
        messages = [{"role": "user", "content": text.strip() or _any_word(own)}]
        theirs = other.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert theirs == render(own, messages, reply=True).tokens, "the chat template that was written gives other ids"


def _knows(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except ValueError:
        return False
    return True


def _any_word(tokenizer: Tokenizer) -> str:
    words = (
        tokenizer.decode([id]).strip()
        for id in range(tokenizer.vocab_size)
        if id not in tokenizer.special_tokens.values()
    )
    return next(word for word in words if word and word not in CHAT_TOKENS)


# ---- in -------------------------------------------------------------------------------------------------------------


def read_huggingface(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings of the model in a folder of Hugging Face's, and its weights by our names, in fp32.

    Raises:
        ValueError: another architecture, an option that we have not, files that are missing or damaged, or weights
            that do not fit.
    """
    shape = shape_from_document(read_json(folder / "config.json"), folder / "config.json")
    config = model_config(shape, folder)
    tensors = tidy_tensors(read_weights(folder), config, folder)
    return shape, from_theirs(tensors, config, "huggingface", folder)


def tidy_tensors(tensors: dict[str, Tensor], config: ModelConfig, source: object) -> dict[str, Tensor]:
    """Their tensors without what only repeats others: causal masks, and a head that is the embedding."""
    base = FAMILIES[config.family].base
    heads = ("lm_head.", "score.")
    if not any(name.startswith(base) for name in tensors):
        tensors = {name if name.startswith(heads) else base + name: tensor for name, tensor in tensors.items()}
    tensors = {name: t for name, t in tensors.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    embedding = tensors.get(TABLES[config.family][0].huggingface)
    if config.tied and embedding is not None and (head := tensors.pop("lm_head.weight", None)) is not None:
        import torch

        if not torch.equal(head, embedding):
            raise ValueError(
                f"{source} has a head that is not the embedding, though its configuration ties the two; it is damaged"
            )
    return tensors


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: safetensors before PyTorch's own files, in one or in shards.

    Raises:
        ValueError: there are none, or a file is missing or damaged, or would execute code.
    """
    for name, read in (("model.safetensors", _read_safetensors), ("pytorch_model.bin", _read_pytorch)):
        if (folder / name).is_file():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = read_json(index).get("weight_map")
            if not isinstance(files, dict):
                raise ValueError(f"{index} does not say which file holds which weight; it is damaged")
            tensors: dict[str, Tensor] = {}
            for file in sorted(set(files.values())):
                if Path(file).name != file:
                    raise ValueError(f"{index} names {file!r}, which is no file beside it; it is damaged")
                tensors |= read(folder / file)
            return tensors
    raise ValueError(f"{folder} holds no weights: it has neither model.safetensors nor pytorch_model.bin")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); fetch it again") from error


def _read_pytorch(path: Path) -> dict[str, Tensor]:
    return only_tensors(read_pickled(path), path)


def read_pickled(path: Path) -> dict[str, Any]:
    """What a file of torch.save holds, as long as that is tensors, numbers, texts and containers of those.

    Raises:
        ValueError: it is missing or damaged, or holds something that only running its code would make.
    """
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not read, because it is damaged or would execute code when it is; "
            "convert it to safetensors where you trust it"
        ) from error
    except (OSError, RuntimeError, EOFError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is missing or damaged ({str(error).splitlines()[0]}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no tensors by name; it is not the file of a model")
    return content


def only_tensors(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The content of a file of PyTorch's, which must be tensors by name.

    Raises:
        ValueError: it is something else too.
    """
    import torch

    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{path} holds {name!r}, which is no tensor; it is not the file of a model")
    return content
