"""Conversations about who an assistant is, written by rules: its name, its maker, facts, false premises, unknown facts.

    settings.py       the name, the maker, the facts and the phrases of an identity, read from files
    conversations.py  the conversations, each a function of (seed, split, index)
    english.txt       the phrases of English; another language is another file of this form

After finetuning on them, mixed with ordinary conversations, an assistant knows its name.
"""
