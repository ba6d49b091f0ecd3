"""Solutions of the exercises of notebook 1: characters and the bigram."""

import torch


def count_triples(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size, vocab_size, dtype=torch.long)
    for a, b, c in zip(ids, ids[1:], ids[2:]):
        counts[a, b, c] += 1
    return counts


def smooth(counts, amount):
    added = counts + amount
    empty = added.sum(dim=1, keepdim=True) == 0
    added = torch.where(empty, 1, added)
    return added / added.sum(dim=1, keepdim=True)


def surprises(probs, ids):
    return -probs[ids[:-1], ids[1:]].log()


def sample_at_temperature(probs, start, length, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = [start]
    for _ in range(length):
        row = probs[ids[-1]]
        if temperature == 0:
            ids.append(row.argmax().item())
        else:
            ids.append(torch.multinomial(row ** (1 / temperature), 1, generator=generator).item())
    return ids[1:]
