"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv:2110.14168). The model's last number is its answer."""

from __future__ import annotations

import re

from understudy.evaluate.task import Example, Split, question
from understudy.evaluate.tasks.source import PublicTask, TaskData, read_source, text_of
from understudy.rewards.verifiers import final_number

CALCULATOR = re.compile(r"<<.*?>>")


class GSM8K(PublicTask):
    """Compares final numbers: `$1,200.00.` is 1200. The final number follows `####`, or else is the last one."""

    name = "gsm8k"
    kind = "answer"
    verifier = "gsm8k"
    max_new_tokens = 256

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        name = "train" if split == "train" else "test"
        source = TaskData("gsm8k", "openai/gsm8k", f"main/{name}-*.parquet", (name,), without="socratic")
        rows = read_source(source, self.path)
        examples = []
        for number, (where, row) in enumerate(rows[:limit]):
            solution = CALCULATOR.sub("", text_of(row, "answer", where))
            if final_number(solution) is None:
                raise ValueError(f"{where} has no number in its answer; GSM8K's end with #### and a number")
            messages = question(text_of(row, "question", where))
            examples.append(Example(f"gsm8k/{name}/{number}", solution, messages, category="gsm8k"))
        return examples
