#!/usr/bin/env bats
# Every command on a trained run, in the forms that scripts rely on: keys, formats, the effect of the seed, and commands
# whose outputs feed one another.

load common.bash

setup_file() { make_run; }

setup() { cd "$BATS_FILE_TMPDIR" || return; }

@test "train leaves a run directory, and says how it goes" {
    [ -f run/config.yaml ] && [ -f run/tokenizer.json ] && [ -f run/metrics.jsonl ]
    [ -f run/checkpoints/step-00000040/model.safetensors ]
    for part in 'step 40/40' loss reconstruction kl beta active '|g|' 'tok/s' MiB left 'neg_elbo'; do
        grep -qF "$part" said
    done
    # The saved configuration reproduces the run.
    "$ELBO" train run/config.yaml --run.dir=again 2> /dev/null
    cmp {run,again}/checkpoints/step-00000040/model.safetensors
}

@test "eval has its keys" {
    "$ELBO" eval run --data.test=test --eval.iwae_samples=3 --json > eval.json
    for key in neg_elbo reconstruction kl kl_per_dim active_units active_units_0.1 mutual_information \
        mutual_information_bound iwae_nll own_z_gain ppl_token ppl_word bits_per_byte unknown_share sentences \
        tokens words; do
        json eval.json "'$key' in x"
    done
    json eval.json 'x["neg_elbo"] > 0 and abs(x["neg_elbo"] - x["reconstruction"] - x["kl"]) < 1e-6'
    json eval.json 'len(x["kl_per_dim"]) == 4 and x["sentences"] == 40 and 0 < x["unknown_share"] < 1'
    json eval.json "x['words'] == $(awk '{ n += 1 + (NF < 12 ? NF : 12) } END { print n }' fresh.txt)" # cut at 12
    awk 'NF <= 12' fresh.txt > short.txt
    "$ELBO" prepare short.txt --out=short --tokenizer.from=run > /dev/null
    "$ELBO" eval run --data.test=short --json > short.json
    json short.json "x['words'] == $(wc -wl < short.txt | awk '{ print $1 + $2 }')"
    json short.json "x['bytes'] == $(wc -c < short.txt)"
    json short.json 'x["shortened"] == 0'
    json eval.json 'abs(x["ppl_token"] - math.exp(x["iwae_nll"] * x["sentences"] / x["tokens"])) < 1e-3'
    json eval.json 'abs(x["bits_per_byte"] - x["iwae_nll"] * x["sentences"] / math.log(2) / x["bytes"]) < 1e-6'
    "$ELBO" eval run/checkpoints/step-00000040 --data.test=test --eval.iwae_samples=3 --json > other.json
    cmp eval.json other.json
    "$ELBO" eval run --data.test=test | grep -q '^neg_elbo'
    "$ELBO" eval run --data.test=test --eval.sentences=7 --json > seven.json
    json seven.json 'x["sentences"] == 7'
}

@test "sample: the seed decides, the count does not" {
    "$ELBO" sample run --count=40 --seed=1 > one
    "$ELBO" sample run --count=40 --seed=1 --threads=2 > same
    "$ELBO" sample run --count=40 --seed=2 > other
    [ "$(wc -l < one)" -eq 40 ]
    cmp one same
    differs one other
    for count in 1 7 33; do
        "$ELBO" sample run --count="$count" --seed=1 > fewer
        head -n "$count" one | cmp - fewer
    done
    "$ELBO" sample run --count=3 --seed=1 --json > rows
    head -n 1 rows > row && json row 'set(x) == {"text"}'
    [ "$("$ELBO" sample run --count=1 --seed=1 --max_length=2 | wc -w)" -le 2 ]
}

@test "sample: one token to choose from is greedy, and the unknown mark is written only when asked for" {
    "$ELBO" sample run --count=30 --top_k=1 --seed=3 > one
    "$ELBO" sample run --count=30 --greedy --seed=3 > greedy
    cmp one greedy
    "$ELBO" sample run --count=30 --top_p=0.000001 --seed=3 | cmp - greedy
    unknown=$(echo zebra | "$ELBO" tokenize corpus | "$ELBO" tokenize corpus --decode)
    "$ELBO" sample run --count=300 --temperature=2 --top_p=1 > never
    lacks never "$unknown"
    "$ELBO" sample run --count=300 --temperature=2 --top_p=1 --allow_unknown > asked
    grep -qF -- "$unknown" asked
}

@test "sample and reconstruct: a search for the likeliest sentence draws nothing" {
    "$ELBO" sample run --count=3 --beam=4 > one
    "$ELBO" sample run --count=2 --beam=4 > fewer
    head -n 2 one | cmp - fewer
    "$ELBO" reconstruct run --beam=4 --length_penalty=1 < fresh.txt > written
    [ "$(wc -l < written)" -eq 40 ]
    refused 2 --beam=4 --temperature -- "$ELBO" sample run --beam=4 --temperature=1
    refused 2 --length_penalty --beam=5 -- "$ELBO" sample run --length_penalty=1
}

@test "encode, decode and reconstruct go round" {
    "$ELBO" encode run --format=jsonl < fresh.txt > z.jsonl
    [ "$(wc -l < z.jsonl)" -eq 40 ]
    head -n 1 z.jsonl > row
    json row 'set(x) == {"text", "mu", "logvar", "z"} and len(x["z"]) == 4 and x["z"] == x["mu"]'
    "$ELBO" decode run < z.jsonl > decoded
    "$ELBO" reconstruct run < fresh.txt > reconstructed
    cmp decoded reconstructed
    [ "$(wc -l < decoded)" -eq 40 ]
    "$ELBO" encode run --format=npy --out=z.npy < fresh.txt
    "$ELBO" encode run --format=npy < fresh.txt | cmp - z.npy
    /usr/bin/python3 -c '
import json, numpy
z = numpy.load("z.npy")
rows = numpy.array([json.loads(line)["z"] for line in open("z.jsonl")], numpy.float32)
assert z.dtype == numpy.float32 and z.shape == (40, 4) and (z == rows).all(), (z, rows)
print("\n".join(json.dumps([float(x) for x in row]) for row in z))' > arrays.jsonl
    "$ELBO" decode run < arrays.jsonl | cmp - decoded
    "$ELBO" encode run --format=jsonl --posterior_mean=false < fresh.txt | head -n 1 > row
    json row 'x["z"] != x["mu"]'
    "$ELBO" reconstruct run --json < fresh.txt | head -n 1 > row
    json row 'set(x) == {"text", "source"}'
}

@test "interpolate begins and ends with the sentences' own" {
    from=$(sed -n 1p fresh.txt) to=$(sed -n 2p fresh.txt)
    "$ELBO" interpolate run --from="$from" --to="$to" --steps=5 > line
    [ "$(wc -l < line)" -eq 5 ]
    printf '%s\n%s\n' "$from" "$to" | "$ELBO" reconstruct run > ends
    (sed -n 1p line; sed -n 5p line) | cmp - ends
}

@test "tokenize, plan and info" {
    [ "$("$ELBO" tokenize run < fresh.txt | "$ELBO" tokenize run --decode | wc -l)" -eq 40 ]
    "$ELBO" tokenize run < fresh.txt > ids
    "$ELBO" tokenize corpus < fresh.txt | cmp - ids
    "$ELBO" plan "${tiny[@]}" --data.train=corpus --json > plan.json
    json plan.json 'x["bytes"]["total"] == sum(v for k, v in x["bytes"].items() if k != "total")'
    json plan.json 'x["vocabulary"] == 60'
    "$ELBO" plan run/config.yaml --json | cmp - plan.json
    "$ELBO" plan | grep -q activations
    "$ELBO" plan "${tiny[@]}" --data.train=corpus --optimizer.moments=bf16 --json > narrow.json
    for plan in plan narrow; do
        /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["bytes"]["optimizer"])' \
            < $plan.json > $plan.bytes
    done
    [ "$(cat plan.bytes)" -eq $((2 * $(cat narrow.bytes))) ] # half the bytes of f32 moments
    [ "$(cat narrow.bytes)" -gt 0 ]
    "$ELBO" info run --json > info.json
    json info.json 'x["kind"] == "run" and x["step"] == 40 and x["vocabulary"] == 60 and x["latent"]["width"] == 4'
    json info.json 'x["last"]["step"] == 40 and x["last_valid"]["valid"]["neg_elbo"] > 0'
    json info.json 'x["counters"]["updates"] == 40'
    "$ELBO" info corpus --json > corpus.json
    [ "$(/usr/bin/python3 -c 'import json; print(json.load(open("corpus.json"))["hash"])')" = \
        "$(/usr/bin/python3 -c 'import json; print(json.load(open("info.json"))["counters"]["corpus"])')" ]
    [ "$(/usr/bin/python3 -c 'import json; print(json.load(open("plan.json"))["parameters"])')" = \
        "$(/usr/bin/python3 -c 'import json; print(json.load(open("info.json"))["parameters"])')" ]
    "$ELBO" info run | grep -q '^step *40 of 40'
    "$ELBO" info run --graph > graph
    grep -q 'linear_cross_entropy' graph
    grep -q 'MFLOP.*backward' graph
    refused 2 'shows the ops of a run' -- "$ELBO" info corpus --graph
}

@test "a language model without a latent trains, is measured and writes" {
    refused 2 '--encoder.width has no effect here' 'no encoder' -- train lm --latent.kind=none
    # A file may hold options that another model uses; options at their default are not mentioned.
    printf 'encoder:\n  width: 16\n  layers: 2\n' > lm.yaml
    "$ELBO" train lm.yaml --data.train=corpus --run.dir=lm --latent.kind=none "${alone[@]}" 2> said
    grep -qF 'these options do not do here what they say: encoder.width (latent.kind=none has no encoder)' said
    lacks said encoder.layers
    "$ELBO" eval lm --data.test=test --json > lm.json
    json lm.json 'x["kl"] == 0 and x["kl_per_dim"] == [] and x["neg_elbo"] == x["reconstruction"]'
    [ "$("$ELBO" sample lm --count=3 | wc -l)" -eq 3 ]
    refused 2 'without a latent' -- "$ELBO" encode lm --format=jsonl
    refused 2 'without a latent' -- "$ELBO" reconstruct lm
}

@test "the other tokenizers train and write" {
    "$ELBO" prepare text.txt --out=byte --tokenizer.kind=byte > /dev/null
    "$ELBO" prepare text.txt --out=bpe --tokenizer.kind=bpe --tokenizer.size=300 > /dev/null
    for kind in byte bpe; do
        "$ELBO" train --data.train=$kind --run.dir=run-$kind "${tiny[@]}" --data.max_length=98 --train.steps=10 \
            2> /dev/null
        [ "$("$ELBO" sample run-$kind --count=3 --json | wc -l)" -eq 3 ]
    done
}

@test "bench: a step's time, and that of each kind of call in it, with shares of what the device was measured to do" {
    "$ELBO" bench step --data.train=corpus "${tiny[@]}" --json > step.json
    json step.json "x['step_seconds_median'] > 0 and len(x['step_seconds']) == 20 and 0 < x['share_of_peak'] < 1"
    "$ELBO" bench kernels --data.train=corpus "${tiny[@]}" --json > kernels.json
    json kernels.json "{k['op'] for k in x['kernels']} == set(json.load(open('step.json'))['ops'])"
    json kernels.json "x['copy_bytes_per_second'] > 1e8 and x['f32_flops'] > 1e8"
    json kernels.json "x['bf16_flops'] is None and x['left_out'] == 0"
    json kernels.json "all(k['seconds'] > 0 and k['calls'] > 0 for k in x['kernels'])"
    json kernels.json "all(k['share_of_floor'] > 0 and k['raw_seconds'] for k in x['kernels'])"
    # The calls over both graphs are those of the step.
    json kernels.json "all(sum(k['calls'] for k in x['kernels'] if k['op'] == op) == o['calls']
                           for op, o in json.load(open('step.json'))['ops'].items())"
    "$ELBO" bench kernels --data.train=corpus "${tiny[@]}" | grep -q '^limits measured here: copy'
    refused 2 "knows 'step', 'kernels' and 'collectives'" -- "$ELBO" bench nothing --data.train=corpus
}
