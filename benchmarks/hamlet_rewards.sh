#!/bin/sh
# GRPO, PPO and DPO from a half-trained assistant of Hamlet, and their gain on fresh prompts.
# Needs the runs demo-base and demo-chat (`understudy demo`) and hamlet-chat-long (hamlet_long.sh).
set -eu

fresh() {  # NAME SEED...: the validation prompts of several seeds in one file
    name=$1
    shift
    for seed in "$@"; do
        understudy prepare hamlet --kind prompts --seed "$seed" --out "data/prompts-$seed" >&2
        cat "data/prompts-$seed/val.jsonl"
    done > "data/$name.jsonl"
}

gain() {  # RUN PROMPTS: sampled on fresh prompts, then greedy on the task
    understudy compare weak "$1" --temperature 1 --data "data/$2.jsonl" --limit 2000 --seed 5
    understudy evaluate "$1" --tasks hamlet --against weak
}

fresh fresh-grpo 105 106 107 108
fresh fresh-long-grpo 81 82 83 84
fresh fresh-others 85 86 87 88
fresh fresh-ppo 89 90 91 92
fresh fresh-dpo 101 102 103 104

# The start: half of the demo's finetuning.
understudy sft hamlet-chat --init-from demo-base --run weak --train.dtype fp32 --train.steps 425 --eval.every_steps 425 --checkpoint.every_steps 425
understudy prepare hamlet --kind prompts --out data/hamlet-prompts
understudy prepare hamlet --kind prompts --limit 40000 --out data/many-prompts

# GRPO: the preset, more prompts, half of the steps.
understudy grpo hamlet-grpo --init-from weak
gain hamlet-grpo fresh-grpo
understudy grpo hamlet-grpo --init-from weak --run long-grpo --data data/many-prompts
gain long-grpo fresh-long-grpo
understudy grpo hamlet-grpo --init-from weak --run short-grpo --train.steps 240 --grpo.eval_prompts 64 --eval.every_steps 80 --checkpoint.every_steps 80
gain short-grpo fresh-others

# The reward model, then PPO with a critic as a head and with one of its own.
understudy prepare hamlet --kind preferences --from weak --answers 8 --corrected --ties --limit 12000 --seed 11 --out data/weak-ties
understudy prepare hamlet --kind preferences --limit 14000 --out data/pairs14
understudy prepare data/pairs14/train.jsonl data/weak-ties/train.jsonl --kind preferences --out data/reward-pairs
understudy reward hamlet-reward-long --init-from hamlet-chat-long --run fourth-reward --data data/reward-pairs --train.steps 4000 --eval.every_steps 500 --eval.max_tokens 200000 --checkpoint.every_steps 500
understudy evaluate fourth-reward --data data/pairs14
for critic in head model; do
    understudy ppo hamlet-ppo --init-from weak --run "ppo-$critic" --ppo.critic "$critic" --data data/many-prompts --ppo.reward_model fourth-reward --ppo.eval_prompts 256 --ppo.kl_coefficient 0.1 --train.steps 960 --eval.every_steps 120 --checkpoint.every_steps 120
    gain "ppo-$critic" fresh-ppo
done
understudy compare ppo-model ppo-head --temperature 1 --data data/fresh-ppo.jsonl --limit 2000 --seed 5

# DPO: pairs of its own answers, and pairs with corrections.
understudy prepare hamlet --kind preferences --from weak --answers 6 --limit 20000 --seed 3 --out data/own-pairs
understudy prepare hamlet --kind preferences --from weak --answers 3 --corrected --limit 5000 --out data/weak-pairs
understudy dpo hamlet-dpo --init-from weak --data data/own-pairs --train.steps 440
gain hamlet-dpo fresh-dpo
understudy dpo hamlet-dpo --init-from weak --run preset-dpo --data data/own-pairs
gain preset-dpo fresh-dpo
understudy dpo hamlet-dpo --init-from weak --run corrected-dpo --data data/weak-pairs
gain corrected-dpo fresh-dpo
understudy dpo hamlet-dpo --init-from weak --run far-dpo --data data/weak-pairs --dpo.beta 0.1
gain far-dpo fresh-others

# Ten seeds of a short PPO: KL stays positive and finite.
for seed in 1 2 3 4 5 6 7 8 9 10; do
    understudy ppo hamlet-ppo --init-from weak --run "ten-$seed" --train.seed "$seed" --ppo.reward_model fourth-reward --ppo.prompts 32 --train.batch_size 64 --train.steps 40 --eval.every_steps 40 --checkpoint.every_steps 40
done

# Over-optimisation of a reward model of few pairs without a KL penalty.
understudy prepare hamlet --kind preferences --from demo-chat --limit 400 --out data/demo-preferences
understudy reward hamlet-reward --init-from demo-chat --data data/demo-preferences --run demo-reward --train.minutes 0.25
understudy ppo hamlet-ppo --init-from weak --run over-ppo --ppo.reward_model demo-reward --ppo.kl_coefficient 0 --optim.lr 6e-4 --train.steps 120 --eval.every_steps 12 --checkpoint.every_steps 12
understudy best-of-n over-ppo
