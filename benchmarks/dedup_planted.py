"""Planted copies and planted questions: what `prepare --dedup minhash` and `--decontaminate` find.

    apt-get download linux-doc-6.1 && dpkg-deb -x linux-doc-6.1_*.deb linux-doc
    python benchmarks/dedup_planted.py --text linux-doc

Originals are documents of 150 to 3,000 words whose 5-word shingles overlap with those of no other original by more than 0.1. Of
some, a copy is planted whose words are replaced one by one, at random places, until its Jaccard similarity is the level's. One
preparation for each level gives its recall (copies dropped) and precision (copies among all that was dropped). Questions are
sentences of other documents, planted in the middle of originals: as they are, in capitals without punctuation, and with each
tenth word replaced. The filters are compared with a chain of datatrove's own steps, document by document. Intervals are Wilson's. `--levels` and `--parts` run it in short pieces; `--out` adds to what is there.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plain import publish
from understudy.data.find import find_files
from understudy.data.quality.contamination import WORDS as GRAM_WORDS
from understudy.data.quality.contamination import Benchmark, n_grams
from understudy.data.quality.copies import Signer
from understudy.data.quality.filters import WordSplitter, make_steps
from understudy.data.quality.settings import QualitySettings
from understudy.data.text.prepare import prepare
from understudy.data.text.reading import TEXT_FILES, read_file
from understudy.data.text.shards import open_split
from understudy.evaluation.statistics import estimate
from understudy.tokenizer import load_tokenizer

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from datatrove_filters import datatrove_chains, filtered_by_both

LEVELS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
MOST_OVERLAP = 0.1
WORDS = (150, 3000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True, help="a folder of text that prepare can read")
    parser.add_argument("--originals", type=int, default=800)
    parser.add_argument("--copies", type=int, default=200, help="of each level, and questions of each spelling")
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)))
    parser.add_argument("--parts", default="copies,questions,filters")
    parser.add_argument("--work", type=Path, default=Path("build/dedup-planted"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng = random.Random(0)
    signer = Signer(("minhash",), WordSplitter("en"))
    texts = distinct(documents(options.text), options.originals + options.copies, signer)
    if len(texts) < options.originals + options.copies:
        raise SystemExit(f"only {len(texts)} documents are different enough: give more text, or fewer --originals")
    originals, others = texts[: options.originals], texts[options.originals :]
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    results = {
        "originals": len(originals),
        "copies": results.get("copies", {}),
        "questions": results.get("questions", {}),
        "filters": results.get("filters", {}),
    }
    if "copies" in options.parts:
        for level in (float(level) for level in options.levels.split(",")):
            row = copies_found(originals, options.copies, level, signer, rng, options.work)
            results["copies"][f"{level}"] = row
            print(level, json.dumps(row), flush=True)
    if "questions" in options.parts:
        results["questions"] = questions_found(originals, others, rng, options.work)
    if "filters" in options.parts:
        results["filters"] = filters_compared(texts)
    publish(results, options.out)


def documents(folder: str) -> Iterator[str]:
    for path in find_files([folder], TEXT_FILES).files:
        text = "".join(piece.text for piece in read_file(path, None, True) if piece.note is None)
        if WORDS[0] <= len(text.split()) <= WORDS[1]:
            yield text.strip()


def distinct(texts: Iterator[str], wanted: int, signer: Signer) -> list[str]:
    """The first texts that share few shingles with the ones before."""
    owners: dict[int, list[int]] = {}
    sizes: list[int] = []
    chosen: list[str] = []
    for text in texts:
        shingles = set(signer.shingles(text).tolist())
        shared = Counter(owner for value in shingles for owner in owners.get(value, ()))
        if any(n / (len(shingles) + sizes[owner] - n) > MOST_OVERLAP for owner, n in shared.items()):
            continue
        for value in shingles:
            owners.setdefault(value, []).append(len(chosen))
        sizes.append(len(shingles))
        chosen.append(text)
        if len(chosen) == wanted:
            break
    return chosen


def planted(text: str, level: float, signer: Signer, rng: random.Random) -> str:
    """A copy whose similarity is at most the level, and as near to it as single words allow."""
    parts = re.split(r"(\s+)", text)
    places = list(range(0, len(parts), 2))
    rng.shuffle(places)
    low, high = 0, len(places)
    while low < high:  # the fewest replaced words
        middle = (low + high) // 2
        if signer.similarity(text, replaced(parts, places[:middle])) <= level:
            high = middle
        else:
            low = middle + 1
    return replaced(parts, places[:low])


def replaced(parts: Sequence[str], places: Sequence[int]) -> str:
    words = list(parts)
    for place in places:
        words[place] = f"zq{place}x"
    return "".join(words)


def kept_texts(texts: Sequence[str], work: Path, **settings: Any) -> Counter[str]:
    """The documents that a preparation keeps."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    source = work / "source.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare([str(source)], work / "data", tokenizer="bpe", vocab_size=1024, **settings)
    tokenizer = load_tokenizer(work / "data")
    kept: Counter[str] = Counter()
    for split in ("train", "val"):
        ids: list[int] = []
        for token in np.asarray(open_split(work / "data", split).tokens).tolist():
            if token == tokenizer.eot_id:
                kept[tokenizer.decode(ids)] += 1
                ids = []
            else:
                ids.append(token)
    return kept


def share(right: int, n: int) -> dict[str, Any]:
    """A share with its interval."""
    if not n:
        return {"share": None, "n": 0}
    value = estimate([1.0] * right + [0.0] * (n - right))
    return {"share": round(value.value, 4), "low": value.low, "high": value.high, "n": n}


def copies_found(
    originals: Sequence[str], n: int, level: float, signer: Signer, rng: random.Random, work: Path
) -> dict[str, Any]:
    copies = [planted(text, level, signer, rng) if level < 1 else text for text in originals[:n]]
    similarities = [signer.similarity(text, copy) for text, copy in zip(originals, copies)]
    kept = kept_texts([*originals, *copies], work, dedup=["minhash"])
    if level < 1:
        found = sum(not kept[copy] for copy in copies)
        false = sum(not kept[text] for text in originals)
    else:
        found = sum(kept[text] == 1 for text in copies)
        false = sum(kept[text] == 0 for text in originals)
    return {
        "similarity": [round(min(similarities), 3), round(max(similarities), 3)],
        "recall": share(found, n),
        "expected": round(sum(1 - (1 - s**8) ** 14 for s in similarities) / n, 4),
        "precision": share(found, found + false),
    }


def questions_found(originals: Sequence[str], others: Sequence[str], rng: random.Random, work: Path) -> dict[str, Any]:
    """Each spelling of questions in documents of its own, and documents without questions."""
    splitter = WordSplitter("en")
    known = {gram for text in originals for gram in n_grams(splitter.simplified(text), GRAM_WORDS)}
    questions = []
    for text in others:
        sentences = [each for each in re.split(r"(?<=[.?!])\s+", text) if 15 <= len(each.split()) <= 40]
        # Of sentences that occur in the originals, such as those of licences, nobody knows where they were planted.
        new = [each for each in sentences if known.isdisjoint(n_grams(splitter.simplified(each), GRAM_WORDS))]
        if new:
            questions.append(" ".join(rng.choice(new).split()))

    def tenth_changed(question: str) -> str:
        return " ".join("zqx" if i % 10 == 5 else word for i, word in enumerate(question.split()))

    spellings = {
        "as it is": lambda question: question,
        "capitals, no punctuation": lambda question: re.sub(r"[^\w\s]", " ", question).upper(),
        "each tenth word replaced": tenth_changed,
    }
    count = min(len(questions), len(originals) // 4)
    documents, groups = list(originals), {}
    for number, (name, spell) in enumerate(spellings.items()):
        groups[name] = range(number * count, (number + 1) * count)
        for place, question in zip(groups[name], questions):
            half = len(documents[place]) // 2
            cut = documents[place].find(" ", half)
            documents[place] = documents[place][:cut] + " " + spell(question) + documents[place][cut:]
    kept = kept_texts(documents, work, decontaminate=[Benchmark("planted", tuple((q,) for q in questions[:count]))])
    dropped = {name: sum(not kept[documents[place]] for place in places) for name, places in groups.items()}
    clean = documents[3 * count :]
    result: dict[str, Any] = {name: share(dropped[name], count) for name in groups}
    result["documents without a question, dropped"] = share(sum(not kept[text] for text in clean), len(clean))
    return result


def filters_compared(texts: Sequence[str]) -> dict[str, Any]:
    """Of each row of --filter, the documents that it drops or changes, and those of which datatrove's steps make the same."""
    rows = {}
    for name, chain in datatrove_chains().items():
        steps = make_steps(QualitySettings((name,)), WordSplitter("en"), None)
        dropped = changed = equal = 0
        for text in texts:
            ours, theirs = filtered_by_both(steps, chain, text)
            dropped += ours is None
            changed += ours is not None and ours != text
            equal += ours == theirs
        rows[name] = {"documents": len(texts), "dropped": dropped, "changed": changed, "equal": equal}
        print(name, json.dumps(rows[name]), flush=True)
    return rows


if __name__ == "__main__":
    main()
