"""Reference implementation of byte-level byte-pair encoding: training and encoding in plain Python.

The tests compare `tokenizers` (which trains) and `tiktoken` (which encodes) with it, merge by merge and id by id.

Training finds the pair of neighbouring tokens that is most frequent within words, gives the pair a new id,
replaces it everywhere, and starts over. Encoding repeats that history on a new word: of all neighbouring pairs that have
an id, the one merged first is replaced first, from left to right.

Which characters are letters is for each engine's Unicode tables to say. `tiktoken` and `tokenizers` agree
on every character; the `regex` package, used here, is sometimes a Unicode version ahead of them, and may
then cut differently around letters that are newer than their tables.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise

import regex

from understudy.tokenizer import SPLIT_PATTERNS, BPETokenizer
from understudy.tokenizer.base import clean
from understudy.tokenizer.bpe import MIN_PAIR_COUNT, Pair, byte_characters


def reference_ids(tokenizer: BPETokenizer, text: str) -> list[int]:
    """The ids of a text, by this implementation; slow."""
    merges = {pair: 256 + i for i, pair in enumerate(tokenizer.merges)}
    ranks = encode_text(clean(text), tokenizer.pattern, merges)
    return ranks if tokenizer.ids is None else [tokenizer.ids[rank] for rank in ranks]


@cache
def _id_of_byte() -> bytes:
    """The id of each byte, as a table for bytes.translate."""
    order = list(byte_characters())
    return bytes(order.index(byte) for byte in range(256))


def count_words(texts: Iterable[str], pattern: str) -> Counter[bytes]:
    """Counts of the words, in UTF-8; `pattern` names a row of SPLIT_PATTERNS."""
    split = regex.compile(SPLIT_PATTERNS[pattern])
    words: Counter[str] = Counter()
    for text in texts:
        words.update(split.findall(text))
    return Counter({word.encode(): count for word, count in words.items()})


def learn_merges(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """The first `n_merges` merges; fewer when no pair is left that occurs MIN_PAIR_COUNT times.

    Of equally frequent pairs the one with the smaller left id goes first, then the smaller right id, as in
    `tokenizers`. Counting anew for every merge would read the whole text each time; instead counts are
    kept, and only words that hold the merged pair are touched.
    """
    spellings = [list(word.translate(_id_of_byte())) for word in words]
    weights = list(words.values())

    counts: Counter[Pair] = Counter()
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, spelling in enumerate(spellings):
        for pair in pairwise(spelling):
            counts[pair] += weights[index]
            words_with[pair].add(index)

    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    merges: list[Pair] = []
    while queue and len(merges) < n_merges:
        queued_count, pair = heapq.heappop(queue)
        if counts[pair] != -queued_count:
            # Its count fell since it was queued. Counts never rise: a merge makes new pairs only with the
            # new token in them, and all of those at once.
            heapq.heappush(queue, (-counts[pair], pair))
            continue
        if counts[pair] < MIN_PAIR_COUNT:
            break
        new_id = 256 + len(merges)
        merges.append(pair)
        new_pairs: set[Pair] = set()
        for index in words_with.pop(pair):
            old = spellings[index]
            new = replace_pair(old, pair, new_id)
            for gone in pairwise(old):
                counts[gone] -= weights[index]
            for here in pairwise(new):
                counts[here] += weights[index]
                if new_id in here:
                    words_with[here].add(index)
                    new_pairs.add(here)
            spellings[index] = new
        for new_pair in new_pairs:
            heapq.heappush(queue, (-counts[new_pair], new_pair))
    return merges


def replace_pair(spelling: list[int], pair: Pair, new_id: int) -> list[int]:
    """The spelling with every `pair` replaced, from left to right: (a, a) in a a a gives aa a."""
    replaced: list[int] = []
    position = 0
    while position < len(spelling):
        if tuple(spelling[position : position + 2]) == pair:
            replaced.append(new_id)
            position += 2
        else:
            replaced.append(spelling[position])
            position += 1
    return replaced


def encode_text(text: str, pattern: str, merges: Mapping[Pair, int]) -> list[int]:
    """The ids of a text; `merges` gives each pair its id."""
    cache: dict[str, list[int]] = {}
    ids: list[int] = []
    for word in regex.findall(SPLIT_PATTERNS[pattern], text):
        if word not in cache:
            cache[word] = encode_word(word.encode(), merges)
        ids += cache[word]
    return ids


def encode_word(word: bytes, merges: Mapping[Pair, int]) -> list[int]:
    """The ids of one word, in O(n log n): a word may be a megabyte of the same letter.

    The tokens are a linked list, and the queue holds every pair that has an id, smallest id first, then
    leftmost. A merged token stays at the place of its left half; the right half's place is struck out.
    """
    struck_out, end = -1, len(word)
    ids = list(word.translate(_id_of_byte()))
    left = list(range(-1, end - 1))
    right = list(range(1, end + 1))
    queue = [(merges[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in merges]
    heapq.heapify(queue)
    while queue:
        new_id, place = heapq.heappop(queue)
        neighbour = right[place]
        if neighbour == end or merges.get((ids[place], ids[neighbour])) != new_id:
            continue  # one of the two has been merged with another since
        ids[place], ids[neighbour] = new_id, struck_out
        right[place] = right[neighbour]
        if right[place] != end:
            left[right[place]] = place
        for start in (left[place], place):
            if start >= 0 and right[start] != end and (pair := (ids[start], ids[right[start]])) in merges:
                heapq.heappush(queue, (merges[pair], start))
    return [id for id in ids if id != struck_out]
