"""Runs as folders of Hugging Face, and such folders read.

Written: config.json, model.safetensors (a large one in shards), the tokenizer's two files, generation_config.json and a
model card; or, with separate adapters, base/ and adapter/ in PEFT's format. Names of weights are in names.py, options in
shapes.py, and imports.py makes a run.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.model import ModelConfig
from understudy.files import read_json
from understudy.interop.huggingface_tokenizer import config_document as tokenizer_config
from understudy.interop.huggingface_tokenizer import tokenizer_document, write_together
from understudy.interop.memory import check_fits_memory
from understudy.interop.model_card import model_card
from understudy.interop.names import COLUMNS, from_theirs, rows_of, table_of, to_theirs
from understudy.interop.proof import EXACT, TOLERANCE, ReferenceOutputs
from understudy.interop.shapes import (
    ARCHITECTURES,
    config_document,
    gives_scores,
    model_config,
    plain_shape,
    plain_weights,
    shape_from_document,
)
from understudy.tokenizer import END_OF_TEXT
from understudy.tokenizer.chat import CHAT_TOKENS, END, START, end_ids, render, speaks_chat
from understudy.tokenizer.huggingface import HuggingFaceTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.run import Run
    from understudy.tokenizer import Tokenizer

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""PyTorch's names of the types of weights."""
SHARD_SIZE = "5GB"
SAMPLE_TEXT = "Sam's 3 cats:\n\n  they don't purr!  "
"""A text to compare tokenizers by, without the characters that they lack."""
PICKLE_ERRORS = (
    pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError,
    MemoryError, OSError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip
"""Exceptions by which unpickling a damaged file fails."""


def require(*modules: str) -> None:
    """Require libraries of the extra `interop`.

    Raises:
        ValueError: one is not installed.
    """
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise ValueError(f"{module} is not installed; install it with `pip install 'understudy[interop]'`")


# ---- Writing --------------------------------------------------------------------------------------------------------


def write_huggingface(run: Run, reference: ReferenceOutputs, folder: Path, type: str = "f32") -> list[str]:
    """Write a run's model, adapters merged; returns a line for each check.

    Args:
        type: of the weights: f32, f16 or bf16.
    """
    from understudy.model import merge_lora

    require("transformers")
    merge_lora(run.model)
    _write_model(run, folder, type)
    return [_read_by_transformers(run, reference, folder, tolerance=TOLERANCE[type])]


def write_peft(run: Run, reference: ReferenceOutputs, folder: Path, out: Path) -> list[str]:
    """Write base/, the model without its adapters, and adapter/ in PEFT's format; returns a line for each check.

    Args:
        out: the final path of the folder, by which adapter/ names its base.

    Raises:
        ValueError: the run has no adapters.
    """
    from safetensors.torch import save_file

    from understudy.model import merge_lora

    lora = run.config.model.lora
    if lora is None:
        raise ValueError(f"the run {run.path} has no adapters; leave --adapter out")
    require("transformers", "peft")
    tensors, targets = _adapters(run)
    task: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    if gives_scores(run):  # PEFT counts the head among the trained weights
        task = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
        tensors["base_model.model.score.weight"] = run.model.get_parameter("score.weight").detach().clone()
    adapter = folder / "adapter"
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    write_together(adapter, {"adapter_config.json": {
        "peft_type": "LORA", **task, "base_model_name_or_path": (out / "base").as_posix(), "r": lora.rank,
        "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": targets, "bias": "none",
        "fan_in_fan_out": run.config.model.family == "gpt2", "inference_mode": True,
    }})  # fmt: skip
    for name, parameter in run.model.named_parameters():
        if name.endswith("lora_b"):
            parameter.data.zero_()
    merge_lora(run.model)  # removes the adapters, which are zero
    _write_model(run, folder / "base")
    return [_read_by_transformers(run, reference, folder / "base", adapter)]


def _write_model(run: Run, folder: Path, type: str = "f32") -> None:
    import torch
    from huggingface_hub import save_torch_state_dict

    config, dtype = plain_shape(run), DTYPES[type]
    weights = {name: tensor.to(getattr(torch, dtype)) for name, tensor in plain_weights(run, config).items()}
    if config.score_head:
        weights.pop("head.weight", None)  # an output head that is not tied; a reward model has none there
    folder.mkdir(exist_ok=True)
    save_torch_state_dict(to_theirs(weights, config, "huggingface"), folder, max_shard_size=SHARD_SIZE)
    for path in folder.glob("*.safetensors"):  # the library makes files that only their owner may read
        path.chmod(0o644)
    tokenizer, names = run.tokenizer, token_names(run.tokenizer)
    if config.score_head and "pad_token" not in names:
        names["pad_token"] = END_OF_TEXT if tokenizer.eot_id is not None else START
    tokens = {f"{name}_token_id": _id_of(tokenizer, names.get(f"{name}_token")) for name in ("bos", "eos", "pad")}
    tokenizer_settings = tokenizer_config(tokenizer, config.context_length)
    tokenizer_settings |= {name: token for name, token in names.items() if name == "pad_token"}
    documents = {
        "config.json": config_document(config, dtype) | tokens,
        "tokenizer.json": tokenizer_document(tokenizer),
        "tokenizer_config.json": tokenizer_settings,
    }
    if not config.score_head:
        documents["generation_config.json"] = tokens | {
            "eos_token_id": sorted(end_ids(tokenizer)) or None,
            "do_sample": True,
        }
    write_together(folder, documents)
    (folder / "README.md").write_text(model_card(run, "transformers"), encoding="utf-8")


def token_names(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens that Hugging Face's settings name, such as bos_token and eos_token."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return dict(tokenizer.token_names)
    end = END if END in tokenizer.special_tokens else END_OF_TEXT
    named = {"bos_token": END_OF_TEXT, "eos_token": end}
    return {name: token for name, token in named.items() if token in tokenizer.special_tokens}


def _id_of(tokenizer: Tokenizer, name: str | None) -> int | None:
    return None if name is None else tokenizer.special_tokens.get(name)


def _adapters(run: Run) -> tuple[dict[str, Tensor], list[str]]:
    """The adapters under PEFT's names, and the names of their layers. If one of our matrices is several of theirs, all
    of these get the same A, and each its rows of B."""
    table = {row.ours: row for row in table_of(run.config.model.family)}
    config, tensors = plain_shape(run), {}
    targets: set[str] = set()
    weights = {name: p.detach() for name, p in run.model.named_parameters() if name.endswith(("lora_a", "lora_b"))}
    for weight, low in weights.items():
        layer, _, which = weight.rpartition(".")
        number = layer.split(".")[1]
        row = table[layer.replace(f".{number}.", ".N.") + ".weight"]
        names = [column.removesuffix(".T").removesuffix(".weight") for column in COLUMNS["huggingface"](row)]
        targets.update(".".join(column.split(".")[-2:]) for column in names)
        sizes = rows_of(row.kind, config.resolve(), len(low)) if which == "lora_b" else ()
        parts = low.split(sizes) if sizes else [low] * len(names)
        matrix = {"lora_a": "lora_A", "lora_b": "lora_B"}[which]
        for name, part in zip(names, parts):
            layer = name.replace(".N.", f".{number}.")
            tensors[f"base_model.model.{layer}.{matrix}.weight"] = part.clone().contiguous()
    return tensors, sorted(targets)


# ---- Comparing ------------------------------------------------------------------------------------------------------


def _read_by_transformers(
    run: Run, reference: ReferenceOutputs, folder: Path, adapter: Path | None = None, tolerance: float = EXACT
) -> str:
    """Load a folder by transformers (and PEFT), and compare its outputs and tokens with the run's."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    reader = f"transformers {transformers.__version__}"
    scores = gives_scores(run)
    kind = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModelForCausalLM
    model: Any = kind.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        import peft

        reader += f" and PEFT {peft.__version__}"
        model = peft.PeftModel.from_pretrained(model, adapter)
    model.eval()
    difference = reference.compare(lambda prompt: model(prompt).logits[0], tolerance, reader)
    _compare_tokens(run.tokenizer, transformers.AutoTokenizer.from_pretrained(folder))
    outputs = "scores" if scores else "logits"
    return f"read by {reader}: the same tokens, and {outputs} within {difference:.1g} of ours"


def _compare_tokens(tokenizer: Tokenizer, other: Any) -> None:
    """Compare the ids of a text and of a conversation.

    Raises:
        RuntimeError: they differ, which is a defect of the export.
    """

    def knows(text: str) -> bool:
        try:
            return bool(tokenizer.encode(text))
        except ValueError:
            return False

    text = "".join(filter(knows, SAMPLE_TEXT))
    if other(text)["input_ids"] != tokenizer.encode_prompt(text):
        raise RuntimeError("the exported tokenizer gives other ids")
    if speaks_chat(tokenizer):
        ordinary = set(range(tokenizer.vocab_size)) - set(tokenizer.special_tokens.values())
        words = (tokenizer.decode([id]).strip() for id in sorted(ordinary))
        word = text.strip() or next(word for word in words if word and word not in CHAT_TOKENS)
        messages = [{"role": "user", "content": word}]
        theirs = other.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        if theirs != render(tokenizer, messages, reply=True).tokens:
            raise RuntimeError("the exported chat template gives other ids")


# ---- Reading --------------------------------------------------------------------------------------------------------


def read_huggingface(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model settings and the weights (fp32, by our names) of a folder of Hugging Face.

    Raises:
        ValueError: another architecture, an option that our model lacks, files that are missing or damaged, or weights
            that do not fit.
    """
    document = read_json(folder / "config.json")
    shape = shape_from_document(document, folder / "config.json")
    config = model_config(shape, folder)
    halves = document.get("dtype", document.get("torch_dtype")) in ("bfloat16", "float16")
    file_bytes = sum(path.stat().st_size for path in weight_files(folder))
    check_fits_memory(folder, file_bytes * (2 if halves else 1))
    tensors = tidy_tensors(read_weights(folder), config, folder)
    check_layers(config, tensors, folder)
    return shape, from_theirs(tensors, config, "huggingface", folder)


def tidy_tensors(tensors: dict[str, Tensor], config: ModelConfig, source: object) -> dict[str, Tensor]:
    """Their tensors without causal masks and without a head that is the embedding."""
    base = ARCHITECTURES[config.family].base
    heads = ("lm_head.", "score.")
    if not any(name.startswith(base) for name in tensors):
        tensors = {name if name.startswith(heads) else base + name: tensor for name, tensor in tensors.items()}
    tensors = {name: t for name, t in tensors.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    check_types(tensors, source)
    embedding = tensors.get(table_of(config.family)[0].huggingface)
    if config.tied and embedding is not None and (head := tensors.pop("lm_head.weight", None)) is not None:
        import torch

        if head.shape != embedding.shape or not torch.equal(head.float(), embedding.float()):
            raise ValueError(
                f"{source} has a head that is not the embedding, though its configuration ties the two; it is damaged"
            )
    return tensors


def check_types(tensors: dict[str, Tensor], source: object) -> None:
    """Refuse tensors that are no plain matrices of fp32, fp16 or bf16.

    Raises:
        ValueError: names the first, and its type.
    """
    import torch

    known = (torch.float32, torch.float16, torch.bfloat16)
    for name, tensor in tensors.items():
        if tensor.dtype not in known or tensor.layout != torch.strided or tensor.device.type != "cpu":
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{source} holds {name} as {kind}; weights in fp32, fp16 or bf16 can be imported")
        if tensor.numel() * tensor.element_size() > 64 + 8 * tensor.untyped_storage().nbytes():
            raise ValueError(f"{source} holds {name} with more numbers than are in the file; it is damaged")


def check_layers(config: ModelConfig, tensors: dict[str, Tensor], source: object) -> None:
    """Refuse a configuration with more layers than tensors, before a model of that many layers is built.

    Raises:
        ValueError: it has.
    """
    if (config.n_layers or 0) > len(tensors):
        raise ValueError(f"{source} has {len(tensors):,} tensors, and its configuration {config.n_layers:,} layers")


def weight_files(folder: Path) -> list[Path]:
    """The files with a folder's weights, one or several: safetensors if there are any, else PyTorch's files.

    Raises:
        ValueError: there are none, or the index that lists them is damaged.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = read_json(index).get("weight_map")
            if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
                raise ValueError(f"{index} does not name the file of each weight; it is damaged")
            if outside := [file for file in files.values() if Path(file).name != file]:
                raise ValueError(f"{index} names {outside[0]!r}, which is no file beside it; it is damaged")
            paths = [folder / file for file in sorted(set(files.values()))]
            if missing := [path for path in paths if not path.is_file()]:
                raise ValueError(f"{missing[0]} is missing, which {index.name} names; fetch it again")
            return paths
    raise ValueError(f"{folder} holds no weights: it has neither model.safetensors nor pytorch_model.bin")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder.

    Raises:
        ValueError: there are none, or a file is missing or damaged, or would execute code.
    """
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        safe = path.suffix == ".safetensors"
        tensors |= _read_safetensors(path) if safe else only_tensors(read_pickled(path), path)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, LookupError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); fetch it again") from error


def read_pickled(path: Path) -> dict[str, Any]:
    """The content of a file of torch.save: tensors, numbers, texts and containers of these.

    Raises:
        ValueError: it is missing or damaged, or reading it would execute code.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not read, because it is damaged or would execute code; convert it to safetensors if you trust it"
        ) from error
    except PICKLE_ERRORS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} is missing or damaged ({reason}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no tensors by name; it is not the file of a model")
    return content


def only_tensors(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The content of a file of PyTorch, as tensors by name.

    Raises:
        ValueError: it holds something else.
    """
    import torch

    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{path} holds {name!r}, which is no tensor; it is not the file of a model")
    return content
