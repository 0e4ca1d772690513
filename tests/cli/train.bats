#!/usr/bin/env bats
# Bad input to train and to the commands that use a run: the documented exit code, a message that says what, where and
# what to do, nothing on standard output, and no loss of data.

load common.bash

setup_file() { make_run; }

setup() {
    cd "$BATS_TEST_TMPDIR" || return
    ln -s "$BATS_FILE_TMPDIR"/{corpus,test,run,text.txt,fresh.txt} .
}

# Makes a corpus of the same tokenizer with a sentence of 25 words.
long_test() {
    { cat fresh.txt && yes the | head -n 25 | tr '\n' ' ' && echo; } > long.txt
    "$ELBO" prepare long.txt --tokenizer.from=corpus --out=long > /dev/null
    echo long
}

@test "missing data, runs and arguments" {
    refused 2 '--data.train is missing' 'elbo prepare' -- "$ELBO" train --run.dir=r
    refused 2 '--run.dir is missing' -- "$ELBO" train --data.train=corpus
    refused 4 'nowhere is not there' 'elbo prepare' -- "$ELBO" train --data.train=nowhere --run.dir=r
    refused 4 'missing.yaml' 'No such file' -- "$ELBO" train missing.yaml
    refused 4 'nowhere' -- "$ELBO" eval nowhere --data.test=test
    mkdir empty
    refused 3 'empty is neither a run directory' -- "$ELBO" sample empty
    refused 2 'corpus is a corpus' 'the folder of a run' -- "$ELBO" sample corpus
    refused 2 '--data.test is missing' -- "$ELBO" eval run
    refused 4 'nowhere is not there' -- "$ELBO" eval run --data.test=nowhere
    refused 2 'needs RUN' -- "$ELBO" sample
    refused 2 'needs --from=' -- "$ELBO" interpolate run --from=a
    refused 4 'nowhere' -- train r --resume=nowhere
    [ ! -e r/metrics.jsonl ]
}

@test "unknown options, wrong types, out of range, rules between options" {
    refused 2 'did you mean train.steps?' -- train r --train.step=4
    refused 2 "'ten' is not a whole number" 'train.steps' -- train r --train.steps=ten
    refused 2 'out of range' 'decoder.dropout' -- train r --decoder.dropout=1
    refused 2 'did you mean adamw?' -- train r --optimizer.kind=adam
    refused 2 'decoder.heads = 3 does not divide decoder.width = 16' -- train r --decoder.heads=3
    refused 2 'train.slot_tokens = 10 cannot hold' 'at least 14' -- train r --train.slot_tokens=10
    refused 2 'encoder.share_embedding needs equal widths' -- train r --encoder.width=32
    refused 2 'does not take --count' -- train r --count=3
    refused 2 'did you mean temperature?' -- "$ELBO" sample run --temprature=1
    refused 2 'out of range' 'count' -- "$ELBO" sample run --count=0
    [ ! -e r ]
}

@test "the CPU refuses activations in bf16, not moments" {
    for moments in f32 bf16; do
        refused 2 '--precision=bf16 needs a GPU' '--device=cpu' -- \
            train r --device=cpu --precision=bf16 --optimizer.moments=$moments
    done
    train narrow --device=cpu --optimizer.moments=bf16 --train.steps=2 --optimizer.warmup_steps=2 2> said
    refused 2 'did you mean bf16?' -- train r --precision=bf15
}

@test "malformed YAML, with line and column" {
    printf 'train:\n  steps: [1, 2\n' > open.yaml
    refused 2 'open.yaml:' -- "$ELBO" train open.yaml
    printf 'train:\n  steps: 5\n  stepz: 6\n' > key.yaml
    refused 2 'key.yaml:3:' 'did you mean' -- "$ELBO" train key.yaml
    printf 'train:\n  steps: many\n' > type.yaml
    refused 2 'type.yaml:2:' 'many' -- "$ELBO" plan type.yaml
}

@test "a damaged or foreign checkpoint" {
    last=checkpoints/step-00000040
    for file in model.safetensors state/optimizer.safetensors config.yaml tokenizer.json manifest.json; do
        for damage in cut flip gone; do
            rm -rf bad && mkdir bad && cp -r run/checkpoints bad
            size=$(stat -c %s "bad/$last/$file") code=3
            case $damage in
                cut) truncate -s -1 "bad/$last/$file" ;;
                flip) printf '\377' | dd of="bad/$last/$file" bs=1 seek=$((size / 2)) conv=notrunc status=none ;;
                gone) rm "bad/$last/$file" && code=4 ;;
            esac
            refused $code 'step-00000040' 'no checkpoint can be used' "$(basename $file)" -- "$ELBO" sample bad
            refused $code 'no checkpoint can be used' "$(basename $file)" -- train bad
        done
    done
    mkdir -p foreign/checkpoints/step-00000001 && cp text.txt foreign/checkpoints/step-00000001/manifest.json
    refused 3 'foreign' -- "$ELBO" sample foreign
    "$ELBO" sample run > /dev/null
}

@test "a damaged corpus" {
    cp -rL corpus flipped && printf '\007' | dd of=flipped/corpus.bin bs=1 seek=300 conv=notrunc status=none
    refused 3 'flipped/corpus.bin' 'prepare the corpus again' -- "$ELBO" train --data.train=flipped --run.dir=r
    cp -rL corpus cut && truncate -s -8 cut/corpus.bin
    refused 3 'cut/corpus.bin' 'prepare the corpus again' -- "$ELBO" eval run --data.test=cut
    [ ! -e r ]
}

@test "a corpus with another tokenizer" {
    "$ELBO" prepare text.txt --out=large --tokenizer.size=100 > /dev/null
    tr a-z b-za < text.txt > shifted.txt # as many ids, other words
    "$ELBO" prepare shifted.txt --out=other --tokenizer.size=60 > /dev/null
    for corpus in large other; do
        refused 3 "$corpus" '--tokenizer.from=run' -- "$ELBO" eval run --data.test=$corpus
        refused 3 'different tokenizers' '--tokenizer.from=' -- train r --data.valid=$corpus
        cp -r run/ mine && chmod -R u+w mine
        refused 3 'corpus it was trained on' -- \
            "$ELBO" train --data.train=$corpus --run.dir=mine "${tiny[@]}" --train.steps=50
        rm -rf mine
    done
}

@test "another model or seed than the run began with" {
    cp -r run/ mine
    refused 2 'step-00000040' 'decoder.width is 16 there and 32 here' 'another --run.dir' -- \
        train mine --decoder.width=32 --encoder.width=32 --train.steps=50
    refused 2 'step-00000040' 'decoder.layers is 1 there and 2 here' -- train mine --decoder.layers=2 --train.steps=50
    refused 2 'already holds checkpoints' '--resume=auto' -- train mine --resume=none
    train mine 2>&1 | grep -q 'nothing to do'
    diff -r run/checkpoints mine/checkpoints
}

@test "what cannot fit in memory is refused before the first step, with the table" {
    for option in --train.slot_tokens=16000000 --train.slots=65536 '--decoder.layers=100 --decoder.ff_width=1048576'; do
        # shellcheck disable=SC2086
        refused 5 'this run needs' activations optimizer 'total' 'train.slot_tokens' -- \
            train r $option --train.slot_tokens=16000000
    done
    limited() { (ulimit -v 400000 && train r --train.slot_tokens=200000); }
    if [ "${ELBO_SANITIZED:-}" != 1 ] && ! grep -q __asan_init "$ELBO"; then
        refused 5 'this run needs' 'the machine has' -- limited
    fi
    [ ! -e r/metrics.jsonl ]
}

@test "sentences longer than the limit: cut, left out or refused, and counted" {
    long=$(awk 'NF > 12' text.txt | wc -l)
    [ "$long" -gt 0 ]
    # One step over slots that hold more than the whole corpus: an epoch and a part of the next.
    train cut --log.every=1 --train.steps=30 2> /dev/null
    train left --data.too_long=skip --log.every=1 --train.steps=30 2> /dev/null
    tail -n 1 cut/metrics.jsonl | grep -q '"shortened":[1-9]'
    tail -n 1 left/metrics.jsonl | grep -q '"shortened":[1-9]'
    differs {cut,left}/checkpoints/step-00000030/model.safetensors
    refused 3 'tokens, more than data.max_length = 12' 'data.too_long' 'corpus' -- train refuse --data.too_long=refuse
    fresh=$(awk 'NF > 12' fresh.txt | wc -l)
    "$ELBO" eval run --data.test=test --json > eval.json 2> message
    grep -qF "$fresh sentences were cut to 12 tokens" message
    grep -q "\"shortened\": $fresh," eval.json
    "$ELBO" reconstruct run < fresh.txt 2>&1 > /dev/null | grep -qF "$fresh sentences are longer"
}

@test "a run directory that cannot be written" {
    : > file
    refused 4 'file' -- train file
    refused 4 'cannot create the folder' -- train file/run
    folder=$(mktemp -d)
    chmod 755 "$folder"
    cp -rL corpus "$folder"
    mkdir -m 555 "$folder/run"
    as_nobody=()
    if [ "$(id -u)" -eq 0 ]; then
        command -v setpriv || skip 'no setpriv'
        as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    fi
    "${as_nobody[@]}" "$ELBO" --version > /dev/null || skip 'the program is out of reach without rights'
    refused 4 "$folder/run" 'Permission denied' -- \
        "${as_nobody[@]}" "$ELBO" train --data.train="$folder/corpus" --run.dir="$folder/run" "${tiny[@]}"
    rm -rf "$folder"
}

@test "a full disk: told on the way, an error at the end, and the run goes on when there is room" {
    # Files of at most 16 KiB stand for the full disk: further writes fail, and their signal is ignored.
    full() { (trap '' XFSZ && ulimit -f 16 && train r --checkpoint.every=15); }
    train r --train.stop_after=10 2> /dev/null
    refused 4 'the checkpoint of step 15 was not saved' 'the checkpoint of step 30 was not saved' \
        'the checkpoint of step 40 was not saved' -- full
    [ "$(ls r/checkpoints)" = "$(printf 'latest\nstep-00000010')" ]
    train r 2> message
    grep -q 'resuming from r/checkpoints/step-00000010' message
    train whole 2> /dev/null
    cmp {r,whole}/checkpoints/step-00000040/model.safetensors
}

@test "latents and text that are none" {
    refused 3 'line 1' 'not JSON' -- bash -c 'echo nonsense | "$ELBO" decode run'
    refused 3 'line 2' 'array of 4 numbers' -- bash -c 'printf "[1,2,3,4]\n[1,2]\n" | "$ELBO" decode run'
    refused 3 'line 1' 'element 2 is not a number' -- bash -c 'echo "[1,2,\"x\",4]" | "$ELBO" decode run'
    [ -z "$("$ELBO" reconstruct run < /dev/null)" ]
    printf 'the \377 cat\n' | "$ELBO" reconstruct run 2>&1 > /dev/null | grep -q 'ill-formed'
    [ "$(printf '\n' | "$ELBO" reconstruct run | wc -l)" -eq 1 ]
}

@test "what the limit on length does is said before the first step, once, and plan says it too" {
    long=$(awk 'NF > 12' text.txt | wc -l) fresh=$(awk 'NF > 12' fresh.txt | wc -l)
    train said --data.valid=test --train.steps=5 2> said.log
    local cut="of 300 sentences .* are longer than data.max_length = 12 tokens and are cut"
    [ "$(grep -c "data.train: $long $cut" said.log)" -eq 1 ]
    [ "$(grep -c "data.valid: $fresh of 40 sentences" said.log)" -eq 1 ]
    "$ELBO" plan --data.train=corpus --data.max_length=12 --json > plan.json 2> said.log
    grep -q "data.train: $long of 300 sentences" said.log
    json plan.json "x['longer_than_max_length'] == $long"
    train all --data.max_length=40 --train.steps=5 2> said.log
    lacks said.log 'longer than'
}

@test "a validation corpus that will be refused is refused before the first step" {
    refused 3 'data.valid: sentence 41 of long has 25 tokens' 'more than data.max_length = 24' -- \
        train late --data.valid="$(long_test)" --data.max_length=24 --data.too_long=refuse
    [ ! -e late ]
}

@test "a configuration comes from a file, from standard input, or from a pipe" {
    printf 'train: {steps: 3}\nlog: {every: 1}\noptimizer: {warmup_steps: 2}\n' > three.yaml
    local rest=()
    for option in "${tiny[@]}"; do
        [[ $option == --train.steps=* || $option == --optimizer.warmup_steps=* ]] || rest+=("$option")
    done
    "$ELBO" train three.yaml --data.train=corpus --run.dir=file "${rest[@]}" 2> /dev/null
    "$ELBO" train - --data.train=corpus --run.dir=input "${rest[@]}" 2> /dev/null < three.yaml
    "$ELBO" train <(cat three.yaml) --data.train=corpus --run.dir=pipe "${rest[@]}" 2> /dev/null
    cmp {file,input}/checkpoints/step-00000003/model.safetensors
    cmp {file,pipe}/checkpoints/step-00000003/model.safetensors
}

@test "train --json prints its result on standard output, and nothing else there" {
    train product --data.valid=test --train.steps=6 --train.eval_every=3 --checkpoint.best=neg_elbo --json \
        > result.json 2> said.log
    json result.json 'x["step"] == 6 and x["valid"]["neg_elbo"] > 0 and x["best"]["step"] in (3, 6)'
    json result.json 'x["loss"] > 0 and not x["interrupted"]'
}

@test "a processor's instructions: chosen, refused, remembered, the same on every rank" {
    refused 2 '--device=cpu:sse9' 'generic, avx2, avx512 or amx' -- train r --device=cpu:sse9
    train one --device=cpu:generic --train.steps=2 --optimizer.warmup_steps=1 2> said
    grep -q 'on the cpu (generic, 1 thread)' said
    train one --device=cpu:generic --train.steps=4 --optimizer.warmup_steps=1 2> said
    lacks said 'other instructions'
    train two --device=cpu --train.steps=2 --optimizer.warmup_steps=1 2> said
    ! grep -q '(generic,' said || skip "this processor has no others"
    train one --device=cpu --train.steps=6 2> said
    grep -q 'computed by other instructions' said
    command -v mpirun > /dev/null || skip "there is no mpirun"
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export ASAN_OPTIONS=detect_leaks=0 # Open MPI leaves memory behind
    local ours=(train --data.train="$BATS_FILE_TMPDIR/corpus" --run.dir=ranks "${tiny[@]}") code=0
    mpirun --oversubscribe -n 1 "$ELBO" "${ours[@]}" --device=cpu:generic : \
        -n 1 "$ELBO" "${ours[@]}" --device=cpu 2> said || code=$?
    [ "$code" -eq 2 ] || { echo "exit code $code: $(cat said)"; return 1; }
    grep -q "rank 1's processor has other instructions than rank 0's" said
}
