"""How the instructions of generated prompts are worded. Training and validation share no wording.

``{amount}`` is such as "exactly 3 sentences"; the other names are arguments of the kind, as text.
"""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "val"]

PHRASINGS: dict[str, dict[Split, tuple[str, ...]]] = {
    "words": {
        "train": ("Use {amount}.", "Answer in {amount}.", "Your answer must have {amount}.", "Write {amount}."),
        "val": ("Keep the length to {amount}.", "I want a reply of {amount}."),
    },
    "sentences": {
        "train": ("Use {amount}.", "Answer in {amount}.", "Your answer must have {amount}.", "Write {amount}."),
        "val": ("Say it in {amount}.", "I want a reply of {amount}."),
    },
    "lines": {
        "train": ("Write {amount}.", "Your answer must have {amount}.", "Put the answer on {amount}."),
        "val": ("Spread the reply over {amount}.", "Give {amount} of text."),
    },
    "paragraphs": {
        "train": (
            "Write {amount}, separated by a blank line.", "Answer in {amount} with an empty line between them.",
            "Your answer must have {amount}, with a blank line in between.",
        ),
        "val": ("Divide the reply into {amount}, with a blank line after each.",),
    },
    "bullets": {
        "train": (
            "Answer with a list of {amount}.", "Your answer must have {amount}, each beginning with '- '.",
            "Use {amount}.", "Write a bulleted list with {amount}.",
        ),
        "val": ("Format the reply as {amount}.", "Reply in bullet form, {amount} in all."),
    },
    "numbered": {
        "train": (
            "Answer with a numbered list of {amount}.", "Number your points 1., 2. and so on, {amount} in all.",
            "Write {amount} as a numbered list.",
        ),
        "val": ("Reply with {amount} in an ordered list that counts from 1.", "Give a list of {amount} with numbers."),
    },
    "json": {
        "train": (
            "Answer only with a JSON object that has {keys}.", "Your whole answer must be valid JSON with {keys}.",
            "Give the answer as a JSON object with {keys} and nothing else.",
        ),
        "val": ("Format the reply as one JSON object with {keys}.", "Reply in JSON, using {keys}."),
    },
    "title": {
        "train": (
            "Begin with a title on a line of its own, marked with '# '.", "Put a heading such as '# Title' above the text.",
            "The first line must be a title that starts with '# '.",
        ),
        "val": ("Give the reply a Markdown heading as its first line.", "Start with a heading line (# and the heading)."),
    },
    "quoted": {
        "train": (
            "Put the whole answer in double quotation marks.", "Your answer must begin and end with a double quote.",
            "Wrap your entire answer in double quotes.",
        ),
        "val": ("Enclose all of the reply in quotation marks, like \"this\".",),
    },
    "lower": {
        "train": (
            "Write everything in lowercase.", "Do not use any capital letters.", "Answer in lowercase letters only.",
            "Your whole answer must be in lower case.",
        ),
        "val": ("Every letter of the reply should be small.", "Reply without uppercase letters."),
    },
    "upper": {
        "train": (
            "Write everything in capital letters.", "Answer in uppercase only.", "Your whole answer must be in upper case.",
            "USE CAPITAL LETTERS ONLY.",
        ),
        "val": ("Every letter of the reply should be a capital.", "Reply in all caps."),
    },
    "starts": {
        "train": (
            'Begin your answer with "{phrase}".', 'Start with the words "{phrase}".',
            'The first words of your answer must be "{phrase}".',
        ),
        "val": ('Open the reply with "{phrase}".', 'Let "{phrase}" be how the reply begins.'),
    },
    "ends": {
        "train": (
            'End your answer with "{phrase}".', 'Finish with the words "{phrase}".',
            'The last words of your answer must be "{phrase}".',
        ),
        "val": ('Close the reply with "{phrase}".', 'Let "{phrase}" be how the reply ends.'),
    },
    "no_commas": {
        "train": ("Do not use commas.", "Your answer must not contain any comma.", "Avoid commas altogether."),
        "val": ("Leave out the comma everywhere in the reply.", "Reply without a single comma."),
    },
    "keywords": {
        "train": ("Use {words}.", "Your answer must contain {words}.", "Include {words} in your answer."),
        "val": ("Make sure that {words} can be found in the reply.", "Mention {words}."),
    },
    "avoid": {
        "train": ("Do not use {words}.", "Your answer must not contain {words}.", "Avoid {words}."),
        "val": ("Keep {words} out of the reply.", "Never mention {words}."),
    },
    "language": {
        "train": ("Answer in {language}.", "Your whole answer must be in {language}.", "Write in {language}."),
        "val": ("Reply in {language}, please.", "Let the reply be in {language}."),
    },
}  # fmt: skip

AMOUNTS: dict[Split, dict[str, str]] = {
    "train": {
        "exact": "exactly {at_least}", "least": "at least {at_least}", "most": "at most {at_most}",
        "range": "between {at_least} and {at_most}",
    },
    "val": {
        "exact": "precisely {at_least}", "least": "no fewer than {at_least}", "most": "no more than {at_most}",
        "range": "from {at_least} to {at_most}",
    },
}  # fmt: skip
UNITS = {
    "words": "word", "sentences": "sentence", "lines": "line", "paragraphs": "paragraph", "bullets": "bullet point",
    "numbered": "item",
}  # fmt: skip
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LANGUAGES = {"de": "German", "fr": "French", "es": "Spanish"}
OPENINGS: dict[Split, tuple[str, ...]] = {
    "train": (
        "Well", "Good question", "In short", "First of all", "To be honest", "Of course", "Here is what I know", "My answer",
        "Let me think", "As far as I know", "Dear reader", "Sure",
    ),
    "val": ("I would say", "To begin with", "Simply put", "Thank you for asking", "Let us see"),
}  # fmt: skip
CLOSINGS: dict[Split, tuple[str, ...]] = {
    "train": (
        "That is all.", "I hope this helps.", "Have a nice day.", "And that is the answer.", "Thank you.", "The end.",
        "Good luck!", "So it is.", "Ask me again any time.",
    ),
    "val": ("Take care.", "That is what I know.", "Is there anything else?", "See you soon.", "Now you know."),
}  # fmt: skip
KEYS: dict[Split, tuple[tuple[str, ...], ...]] = {
    "train": (("answer",), ("answer", "reason"), ("summary",), ("topic", "text"), ("result",)),
    "val": (("reply",), ("reply", "comment"), ("content",)),
}
LAYOUTS = ("{question} {asks}", "{asks} {question}", "{question}\n{asks}")
