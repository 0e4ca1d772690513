# elbo devices: the devices of this machine, as text and as JSON, and the reason for each one that cannot be used.
load common

@test "the CPU can be used, and says its instructions and threads" {
    run "$ELBO" devices --threads=1
    [ "$status" -eq 0 ]
    [[ $output =~ (^|$'\n')"cpu          yes  "[a-z0-9]+", 1 thread" ]]
    [[ $output == *$'\n'"cpu:generic  yes  "* ]]
    [[ $output == *$'\n'"cuda:0 "* ]]
}

@test "a device trains if it is usable, and is refused if not" {
    cd "$BATS_TEST_TMPDIR"
    "$ELBO_SOURCE/scripts/grammar-text" --sentences=50 --seed=1 --out=text.txt
    "$ELBO" prepare text.txt --out=corpus > said 2>&1
    "$ELBO" devices --json > devices.json
    python3 - devices.json > names <<'P'
import json, sys
for row in json.load(open(sys.argv[1])):
    assert row["detail"], row
    print(row["device"], 0 if row["usable"] else 8)
P
    [ "$(wc -l < names)" -ge 6 ]
    while read -r device code; do
        run "$ELBO" train --data.train=corpus --run.dir="run-$device" --device="$device" "${tiny[@]}" --train.steps=1 \
            --optimizer.warmup_steps=0
        [ "$status" -eq "$code" ]
    done < names
}

@test "it takes no arguments" {
    run "$ELBO" devices cpu
    [ "$status" -eq 2 ]
}
