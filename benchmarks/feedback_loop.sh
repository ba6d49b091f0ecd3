#!/bin/sh
# Feedback of simulated visitors: finetuning on corrections, DPO after it, and both on held-out words.
# Needs the run weak (hamlet_rewards.sh).
set -eu
python benchmarks/feedback_loop.py weak --visitors 200 --questions 16 --out benchmarks/results/feedback_loop.json
understudy improve weak --method dpo --db sqlite:///runs/weak-improved-feedback.db --run weak-dpo
understudy compare weak weak-dpo --temperature 1 --data data/weak-improved-asked-next.jsonl --limit 2000 --seed 0
for seed in 109 110 111 112; do
    understudy prepare hamlet --kind prompts --seed "$seed" --out "data/prompts-$seed" >&2
    cat "data/prompts-$seed/val.jsonl"
done > data/fresh-feedback.jsonl
for run in weak-improved weak-dpo; do
    understudy compare weak "$run" --temperature 1 --data data/fresh-feedback.jsonl --limit 2000 --seed 5
done
