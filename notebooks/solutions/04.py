"""Solutions of the exercises of notebook 4: byte-pair encoding."""

import codecs
import re
from itertools import pairwise


def encode_by_rank(ids, merges):
    ids = list(ids)
    while found := [pair for pair in pairwise(ids) if pair in merges]:
        first = min(found, key=merges.get)
        merged, place = [], 0
        while place < len(ids):
            if tuple(ids[place : place + 2]) == first:
                merged.append(merges[first])
                place += 2
            else:
                merged.append(ids[place])
                place += 1
        ids = merged
    return ids


def greedy_encode(text, vocabulary):
    longest = max(map(len, vocabulary))
    ids, place = [], 0
    while place < len(text):
        for length in range(longest, 0, -1):
            piece = text[place : place + length]
            if piece in vocabulary:
                break
        else:
            raise ValueError(f"no token fits at byte {place}")
        ids.append(vocabulary[piece])
        place += len(piece)
    return ids


def encode_with_special(text, special_tokens, encode):
    if not special_tokens:
        return encode(text)
    names = sorted(special_tokens, key=len, reverse=True)
    pattern = "(" + "|".join(map(re.escape, names)) + ")"
    ids = []
    for number, part in enumerate(re.split(pattern, text)):
        if number % 2:
            ids.append(special_tokens[part])
        elif part:
            ids += encode(part)
    return ids


def stream_texts(pieces):
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [decoder.decode(piece) for piece in pieces] + [decoder.decode(b"", final=True)]
