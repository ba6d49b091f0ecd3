#!/bin/sh
# The longer recipe of Hamlet's assistant, and its accuracy on held-out questions.
set -eu
understudy prepare hamlet --tokenizer bpe --vocab-size 1536 --out data/hamlet
understudy prepare hamlet --kind conversations --limit 180000 --out data/hamlet-conversations-long
understudy pretrain hamlet-long
understudy sft hamlet-chat-long --init-from hamlet-long
understudy evaluate hamlet-chat-long --tasks hamlet
