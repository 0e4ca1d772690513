#!/usr/bin/env bats
# Errors of use: three hundred wrong command lines with their answers, common habits of users, and help that fits a
# screen.

load common.bash

setup_file() {
    make_run
    "$ELBO" train --data.train=corpus --run.dir=language "${alone[@]}" --latent.kind=none --train.steps=2 \
        --optimizer.warmup_steps=1 2> /dev/null
    mkdir young && cp run/config.yaml run/tokenizer.json young/ && mkdir young/checkpoints
    mkdir folder
    printf '[train]\nsteps = 5\n' > toml.toml
    printf 'train:\n  stepz: 5\n' > stepz.yaml
    printf 'train:\n  steps: many\n' > many.yaml
    printf 'optimizer:\n  lr: 0.1\n' > lr.yaml
    printf 'just text\n' > text.yaml
    printf 'train: [1]\n' > list.yaml
    printf 'train:\n  steps: ~\n' > null.yaml
    printf 'seed: 1\nseed: 2\n' > twice.yaml
    "$ELBO" encode run < fresh.txt > z.npy
    head -c 100 z.npy > cut.npy
    echo '[1, 2]' > short.jsonl
    : > empty.txt
}

setup() { cd "$BATS_FILE_TMPDIR" || return; }

@test "wrong invocations end with their code, one line, and a remedy" {
    run /usr/bin/python3 "$BATS_TEST_DIRNAME/wrong_invocations.py" "$ELBO" "$BATS_FILE_TMPDIR"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'wrong invocations; by exit code'* ]]
}

@test "what people type by reflex" {
    for word in --version -V -v; do [[ $("$ELBO" $word) == "elbo "[0-9]* ]]; done
    for word in -h --help; do
        "$ELBO" $word | grep -q '^usage: elbo COMMAND'
        "$ELBO" train $word | grep -q -- '--optimizer.learning_rate'
        "$ELBO" sample run $word --nonsense | grep -q -- '--top_p' # other words do not matter
    done
    "$ELBO" help train | cmp - <("$ELBO" train --help)
    for value in true yes on 1; do
        "$ELBO" sample run --count=1 --greedy=$value | cmp - <("$ELBO" sample run --count=1 --greedy)
    done
    for value in false no off 0; do
        "$ELBO" sample run --count=1 --greedy=$value | cmp - <("$ELBO" sample run --count=1)
    done
    printf 'a sentence\n' > -dash.txt
    "$ELBO" prepare --out=dashed -- -dash.txt | grep -q '1 sentence'
    refused 4 --nowhere.txt -- "$ELBO" prepare --out=x -- -dash.txt --nowhere.txt # after --, a file
    printf 'train:\nseed: 3\n' > section.yaml
    "$ELBO" train section.yaml --data.train=corpus --run.dir=section "${tiny[@]}" --train.steps=1 \
        --optimizer.warmup_steps=1 2> /dev/null
    printf '{"seed": 3, "train": {"steps": 1}}' > config.json # JSON is YAML
    "$ELBO" train config.json --data.train=corpus --run.dir=json "${tiny[@]}" --train.steps=1 \
        --optimizer.warmup_steps=1 2> /dev/null
}

@test "help fits a screen, and says what is so" {
    local commands
    commands=$("$ELBO" --help | sed -n '/^usage/,/^`/{s/^  \([a-z-]*\) .*/\1/p}')
    [ "$(wc -w <<< "$commands")" -ge 18 ]
    for command in $commands; do
        "$ELBO" $command --help > help
        awk -v c="$command" 'length > 100 || NR > 24 { print c, NR, $0; bad = 1 } END { exit bad }' help
        "$ELBO" $command --help=all > all
        [ "$(grep -c '^  --' all)" -ge "$(grep -c '^  --' help)" ]
        awk -v c="$command" 'length > 100 { print c ": " $0; bad = 1 } END { exit bad }' <("$ELBO" $command --help=all)
    done
    "$ELBO" train --help=all | grep -q -- '--optimizer.epsilon'
    # Greedy unless an option asks for sampling.
    "$ELBO" reconstruct run < fresh.txt > plain
    "$ELBO" reconstruct run --greedy < fresh.txt | cmp - plain
    "$ELBO" reconstruct run --greedy=false < fresh.txt > drawn
    "$ELBO" reconstruct run --temperature=0.8 --top_p=0.9 < fresh.txt | cmp - drawn
    differs plain drawn
    "$ELBO" encode --help > help
    lacks help --json
}

@test "a search without a penalty of its own is normalized, and writes no more empty lines than greedy" {
    "$ELBO" reconstruct run --beam=5 < fresh.txt > beam
    "$ELBO" reconstruct run --beam=5 --length_penalty=1 < fresh.txt | cmp - beam
    "$ELBO" reconstruct run --beam=5 --length_penalty=0 < fresh.txt > unnormalized
    differs beam unnormalized
    [ "$(grep -c '^$' beam)" -le "$("$ELBO" reconstruct run < fresh.txt | grep -c '^$')" ]
}

@test "the ends of an interpolation that are cut are said" {
    "$ELBO" interpolate run --from="$(yes bird | head -n 30 | tr '\n' ' ')" --to='the bird' --steps=2 \
        2> said > /dev/null
    grep -q "1 sentence is longer than the model's 12 tokens and was cut" said
}
