# Shared by the bats files of trained runs: a small corpus, a tiny trained run made once per file, and `refused`.
# shellcheck shell=bash disable=SC2034

tiny=(--encoder.width=16 --decoder.width=16 --encoder.heads=2 --decoder.heads=2 --encoder.layers=1 --decoder.layers=1
    --encoder.ff_width=32 --decoder.ff_width=32 --latent.width=4 --train.slots=2 --train.slot_tokens=100
    --data.max_length=12 --train.steps=40 --optimizer.learning_rate=0.01 --optimizer.warmup_steps=5 --threads=1)

# The same without a latent: options without effect are refused.
alone=()
for option in "${tiny[@]}"; do [[ $option == --encoder.* || $option == --latent.* ]] || alone+=("$option"); done

# Text, corpora (a tokenizer that leaves words unknown) and a run in the folder of this file.
make_run() {
    cd "$BATS_FILE_TMPDIR" || return
    "$ELBO_SOURCE/scripts/grammar-text" --sentences=300 --seed=1 --out=text.txt
    "$ELBO_SOURCE/scripts/grammar-text" --sentences=40 --seed=2 --out=fresh.txt
    "$ELBO" prepare text.txt --out=corpus --tokenizer.size=60 > /dev/null
    "$ELBO" prepare fresh.txt --out=test --tokenizer.from=corpus > /dev/null
    "$ELBO" train --data.train=corpus --data.valid=test --run.dir=run "${tiny[@]}" 2> said
}

# refused CODE PART ... -- COMMAND: exit code, and every part stands on standard error, nothing on standard output
refused() {
    local code=$1 parts=() part
    shift
    while [ "$1" != -- ]; do parts+=("$1"); shift; done
    shift
    local got=0
    "$@" > product 2> message || got=$?
    [ "$got" -eq "$code" ] || { echo "exit code $got: $(cat message)"; return 1; }
    for part in "${parts[@]}"; do
        grep -qF -- "$part" message || { echo "'$part' is not in: $(cat message)"; return 1; }
    done
    [ ! -s product ] || { echo "on standard output: $(cat product)"; return 1; }
}

# train RUN OPTIONS ...: trains on the file's corpus
train() {
    local run=$1
    shift
    "$ELBO" train --data.train="$BATS_FILE_TMPDIR/corpus" --run.dir="$run" "${tiny[@]}" "$@"
}

# Bats does not see the failure of a negated command, so:
differs() { if cmp -s "$1" "$2"; then echo "$1 and $2 are the same"; return 1; fi; }
lacks() { if grep -qF -- "$2" "$1"; then echo "'$2' is in $1"; return 1; fi; }

# json FILE EXPRESSION: a Python expression on the object `x` holds
json() {
    /usr/bin/python3 -c "import json, math, sys; x = json.load(open(sys.argv[1])); assert $2, x" "$1"
}
