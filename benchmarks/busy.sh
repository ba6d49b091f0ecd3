#!/bin/sh
# Training speed alone and beside a busy loop, for several values of GOMP_SPINCOUNT.
set -eu
for spin in infinite 300000 30000 3000 0; do
    GOMP_SPINCOUNT=$spin understudy bench hamlet --train.dtype fp32
done
while :; do :; done &
loop=$!
trap 'kill $loop' EXIT
for spin in infinite 300000 30000 3000 0; do
    GOMP_SPINCOUNT=$spin understudy bench hamlet --train.dtype fp32
done
