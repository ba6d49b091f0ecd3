"""Solutions of the exercises in notebook 6."""


def chat_text(messages, reply=False):
    text = ""
    for message in messages:
        text += f"<|im_start|>{message['role']}\n{message['content'].strip()}<|im_end|>\n"
    return text + ("<|im_start|>assistant\n" if reply else "")


def targets(tokens, mask):
    return [token if trained else -100 for token, trained in zip(tokens[1:], mask[1:], strict=True)]


def until_end(tokens, end_ids):
    for place, token in enumerate(tokens):
        if token in end_ids:
            return tokens[:place], True
    return tokens, False
