#!/usr/bin/env bats
# Streams: each line is answered while the pipe stays open, the bytes do not depend on how lines arrive, memory is
# bounded, readers may leave early, text may hold NUL and byte order marks, and decode reads the .npy that encode
# writes.

load common.bash

setup_file() {
    make_run
    # A byte model, trained on text with NUL. It is far from trained, so that it can write any byte.
    python3 -c "import sys; sys.stdout.buffer.write(b''.join(b'ab\0c%d\n' % i for i in range(200)))" > nul.txt
    "$ELBO" prepare nul.txt --out=bytes --tokenizer.kind=byte > /dev/null
    "$ELBO" train --data.train=bytes --run.dir=byte_run "${tiny[@]}" --train.steps=3 \
        --optimizer.warmup_steps=1 2> /dev/null
    cat > held.py << 'P'
"""held.py LINES COMMAND ...: writes a line, waits for its answer, and so on; prints the answers, and the longest wait
to stderr."""
import subprocess, sys, time
lines, command = open(sys.argv[1], "rb").read().splitlines(True), sys.argv[2:]
p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
longest = 0
for k, line in enumerate(lines):
    start = time.monotonic()
    p.stdin.write(line)
    p.stdin.flush()
    sys.stdout.buffer.write(p.stdout.readline())
    if k:  # the first waits for the program to start
        longest = max(longest, time.monotonic() - start)
p.stdin.close()
sys.stdout.buffer.write(p.stdout.read())
print(f"{longest:.4f}", file=sys.stderr)
sys.exit(p.wait())
P
}

setup() { cd "$BATS_FILE_TMPDIR" || return; }

# The tests need only Debian's python3 and its library.
python3() { /usr/bin/python3 "$@"; }

@test "every line is answered while the pipe is held, as it is from a file" {
    head -n 6 fresh.txt > six.txt
    "$ELBO" encode run --format=jsonl < six.txt > six.jsonl
    "$ELBO" tokenize run < six.txt > six.ids
    for command in "reconstruct run" "reconstruct run --temperature=1" "reconstruct run --posterior_mean=false" \
        "reconstruct run --beam=3" "reconstruct run --json" "encode run --format=jsonl" \
        "encode run --format=jsonl --posterior_mean=false" "tokenize run" "tokenize run --json" \
        "decode run < six.jsonl" "decode run --temperature=1 < six.jsonl" "tokenize run --decode < six.ids"; do
        input=six.txt
        [[ $command != *' < '* ]] || input=${command##* < }
        # shellcheck disable=SC2086
        "$ELBO" ${command%% < *} < "$input" > whole
        # shellcheck disable=SC2086
        python3 held.py "$input" "$ELBO" ${command%% < *} > held 2> wait || { cat wait; return 1; }
        cmp whole held || { echo "$command"; return 1; }
        awk -v c="$command" '$1 > 0.2 { print c ": " $1 " s"; exit 1 }' <(tail -n 1 wait)
    done
}

@test "the first line is answered within 0.2 s of its end" {
    cat > first.py << 'P'
import subprocess, sys, time
p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
time.sleep(0.7)  # the program has started, and waits
start = time.monotonic()
p.stdin.write(b"the bird sings\n")
p.stdin.flush()
assert p.stdout.readline()
spent = time.monotonic() - start
p.stdin.close()
p.wait()
assert spent < 0.2, spent
P
    for command in "reconstruct run" "encode run --format=jsonl" "tokenize run"; do
        # shellcheck disable=SC2086
        python3 first.py "$ELBO" $command
    done
}

@test "lines that arrive in pieces, without an end, or all at once are the same" {
    for n in 1 2 3; do cat fresh.txt; done > many.txt # more than a batch
    printf 'no end of line' >> many.txt
    "$ELBO" reconstruct run --temperature=1 < many.txt > whole
    [ "$(wc -l < whole)" -eq 121 ]
    "$ELBO" encode run --posterior_mean=false < many.txt > whole.npy
    cat > pieces.py << 'P'
import sys, time
data = open(sys.argv[1], "rb").read()
for at in range(0, len(data), 997):
    sys.stdout.buffer.write(data[at:at + 997])
    sys.stdout.flush()
    time.sleep(0.02)
P
    python3 pieces.py many.txt | "$ELBO" reconstruct run --temperature=1 | cmp - whole
    python3 pieces.py many.txt | "$ELBO" encode run --posterior_mean=false | cmp - whole.npy
    "$ELBO" reconstruct run < /dev/null > nothing
    [ ! -s nothing ]
}

@test "memory does not grow with the input or the count, and a reader may leave early" {
    cat > peak.py << 'P'
import resource, subprocess, sys
subprocess.run(sys.argv[3:], stdin=open(sys.argv[2]), stdout=subprocess.DEVNULL, check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(peak)
assert peak < float(sys.argv[1]), peak
P
    for _ in $(seq 250); do cat text.txt; done > long.txt # 75,000 lines, 2 MB
    if [ "${ELBO_SANITIZED:-}" != 1 ]; then
        few=$(python3 peak.py 1000000 fresh.txt "$ELBO" tokenize run)
        python3 peak.py "$(awk -v p="$few" 'BEGIN { print p + 2 }')" long.txt "$ELBO" tokenize run
        few=$(python3 peak.py 1000000 /dev/null "$ELBO" sample run --count=64)
        python3 peak.py "$(awk -v p="$few" 'BEGIN { print p + 2 }')" /dev/null "$ELBO" sample run --count=3000
    fi
    for command in "sample run --count=1000000" "tokenize run" "reconstruct run" "encode run --format=jsonl"; do
        # shellcheck disable=SC2086
        timeout 10 bash -c 'yes "the bird sings" | "$ELBO" '"$command"' 2> said | head -n 3' > three
        [ "$(wc -l < three)" -eq 3 ]
        [ ! -s said ] || { cat said; return 1; }
    done
}

@test "every sample has a z of its own, in every batch" {
    "$ELBO" sample run --greedy --count=192 > all # greedy, so only z decides
    [ "$(sort -u all | wc -l)" -gt 1 ]
    for batch in 0 64 128; do tail -n +$((batch + 1)) all | head -n 64 > "batch$batch"; done
    differs batch0 batch64
    differs batch64 batch128
    "$ELBO" sample run --greedy --count=192 --seed=2 > other
    differs all other
}

@test "what cannot be written is an error, and ends a long command" {
    refused 4 'standard output' -- timeout 10 bash -c '"$ELBO" sample run --count=100000000 > /dev/full'
    refused 4 'standard output' -- timeout 10 bash -c 'yes the bird | "$ELBO" tokenize run > /dev/full'
}

@test "text with NUL keeps its length" {
    head -n 5 nul.txt > five
    "$ELBO" tokenize bytes < five | "$ELBO" tokenize bytes --decode | cmp - five
    "$ELBO" encode byte_run --format=jsonl < five > five.jsonl
    "$ELBO" reconstruct byte_run --json < five > five.rows
    python3 - << 'P'
import json
lines = open("five").read().split("\n")[:-1]
assert [json.loads(row)["text"] for row in open("five.jsonl")] == lines
assert [json.loads(row)["source"] for row in open("five.rows")] == lines
P
    "$ELBO" decode byte_run < five.jsonl > decoded # "\u0000" in a line does not hinder
    [ "$(wc -l < decoded)" -eq 5 ]
    # Every byte may be generated; there are as many lines as sentences, with NUL among them.
    "$ELBO" sample byte_run --count=400 --temperature=3 --top_p=1 > any
    [ "$(wc -l < any)" -eq 400 ]
    python3 -c "x = open('any', 'rb').read(); assert b'\0' in x and b'\r' not in x"
    "$ELBO" sample byte_run --count=400 --temperature=3 --top_p=1 --json > any.json
    python3 -c "
import json
lines = open('any', 'rb').read().decode('utf-8', 'replace').split('\n')[:-1]
assert [json.loads(l)['text'] for l in open('any.json')] == lines"
}

@test "ids that spell a line end are refused, and written as JSON" {
    echo '100 13 101' > ids # 13 - 3 = 10, a line feed
    refused 3 'line 1' 'line end' --json -- "$ELBO" tokenize bytes --decode < ids
    [ "$("$ELBO" tokenize bytes --decode --json < ids)" = '"a\nb"' ]
    echo '16' > ids
    refused 3 'line end' -- "$ELBO" tokenize bytes --decode < ids
}

@test "a byte order mark at the beginning is no letter" {
    head -n 3 fresh.txt > plain
    { printf '\xef\xbb\xbf'; cat plain; } > marked
    "$ELBO" encode run < plain > z.npy
    for command in "tokenize run" "reconstruct run --json" "encode run --format=jsonl" "encode run"; do
        # shellcheck disable=SC2086
        "$ELBO" $command < plain > without
        # shellcheck disable=SC2086
        "$ELBO" $command < marked > with
        cmp without with
    done
    "$ELBO" encode run --format=jsonl < plain > z.jsonl
    { printf '\xef\xbb\xbf'; cat z.jsonl; } | "$ELBO" decode run > with
    "$ELBO" decode run < z.jsonl | cmp - with
    printf 'a\n\xef\xbb\xbf\n' | "$ELBO" tokenize run --json > second # the same in the middle of the text
    [ "$(sed -n 2p second)" = '[]' ]
}

@test "what is no text is refused with the command that converts it" {
    iconv -f UTF-8 -t UTF-16 fresh.txt > wide.txt
    gzip -c fresh.txt > fresh.txt.gz
    tr '\n' '\r' < fresh.txt > returns.txt
    for command in "tokenize run" "reconstruct run" "encode run --format=jsonl"; do
        # shellcheck disable=SC2086
        refused 3 'UTF-16' 'iconv' -- "$ELBO" $command < wide.txt
        # shellcheck disable=SC2086
        refused 3 'gzip' 'zcat FILE | elbo ...' -- "$ELBO" $command < fresh.txt.gz
        # shellcheck disable=SC2086
        refused 3 'carriage returns' 'tr ' -- "$ELBO" $command < returns.txt
    done
    [ "$(printf '{"a": 1}\n' | "$ELBO" tokenize run | wc -l)" -eq 1 ] # a sentence may look like JSON
}

@test "decode reads the npy that encode writes, and refuses what is none" {
    "$ELBO" encode run < fresh.txt > z.npy
    "$ELBO" encode run --format=jsonl < fresh.txt | "$ELBO" decode run > wanted
    "$ELBO" encode run < fresh.txt | "$ELBO" decode run | cmp - wanted
    "$ELBO" decode run < z.npy | cmp - wanted
    "$ELBO" reconstruct run < fresh.txt | cmp - wanted
    /usr/bin/python3 - << 'P'
import struct
def npy(name, shape, rows, descr="<f4", extra=b"", order=False):
    head = ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (descr, order, shape)).encode()
    head += b" " * ((-len(head) - 11) % 64) + b"\n"
    data = struct.pack("<%df" % len(rows), *rows)
    open(name, "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data + extra)
npy("good.npy", (2, 4), [0.5] * 8)
npy("wide.npy", (2, 5), [0] * 10)
npy("flat.npy", "(4,)", [0] * 4)
npy("short.npy", (3, 4), [0] * 8)
npy("long.npy", (2, 4), [0] * 8, extra=b"x")
npy("huge.npy", (2**62, 4), [0] * 8)
npy("many.npy", (2**40, 4), [0] * 8)
npy("double.npy", (1, 4), [0] * 8, "<f8")
npy("columns.npy", (2, 4), [0] * 8, order=True)
npy("nan.npy", (2, 4), [0] * 6 + [float("nan"), 0])
npy("none.npy", (0, 4), [])
open("head.npy", "wb").write(open("good.npy", "rb").read()[:40])
open("magic.npy", "wb").write(b"\x93NUMPY")
open("version.npy", "wb").write(b"\x93NUMPY\x09\x00" + bytes(100))
open("length.npy", "wb").write(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100))
open("other.npy", "wb").write(b"\x93PNG" + bytes(100))
P
    [ "$("$ELBO" decode run < good.npy | wc -l)" -eq 2 ]
    [ "$("$ELBO" decode run < none.npy | wc -l)" -eq 0 ]
    refused 3 '(2, 5)' '4 numbers' -- "$ELBO" decode run < wide.npy
    refused 3 '4 numbers' -- "$ELBO" decode run < flat.npy
    refused 3 overflows -- "$ELBO" decode run < huge.npy
    refused 3 "'<f4'" -- "$ELBO" decode run < double.npy
    refused 3 Fortran -- "$ELBO" decode run < columns.npy
    refused 3 'row 1, element 2' -- "$ELBO" decode run < nan.npy
    refused 3 truncated '3 rows' '2 are there' -- "$ELBO" decode run < short.npy
    refused 3 truncated -- "$ELBO" decode run < many.npy
    for bad in head magic version length other; do refused 3 npy -- "$ELBO" decode run < "$bad.npy"; done
    "$ELBO" decode run < long.npy > /dev/null 2> message && return 1
    grep -q 'bytes follow the 2 rows' message
    echo '[1, 2, 3]' | refused 3 'line 1' '4 numbers' 'found 3' -- "$ELBO" decode run
    echo '{"x": 1}' | refused 3 'line 1' '"z"' '"mu"' -- "$ELBO" decode run
}

@test "closed standard streams: nothing is written into files, products fail, work does not" {
    train closed 2>&- < /dev/null
    train closed_all <&- >&- 2>&-
    [ -d closed/checkpoints/step-00000040 ] && [ -d closed_all/checkpoints/step-00000040 ]
    if grep -r -a -l 'tok/s' closed closed_all; then return 1; fi
    for command in "sample run" "tokenize run --decode" "info run" "help"; do
        local got=0
        # shellcheck disable=SC2086
        echo 5 | "$ELBO" $command >&- 2> message || got=$?
        [ "$got" -eq 4 ] && grep -q 'standard output' message || { echo "$command: $got"; cat message; return 1; }
    done
    local got=0
    "$ELBO" tokenize run <&- 2> message || got=$?
    [ "$got" -eq 4 ] && grep -q 'standard input' message
    "$ELBO" sample run --count=1 <&- 2>&- > one
    [ "$(wc -l < one)" -eq 1 ]
}

@test "a reader of the log that leaves does not end a training" {
    train left --log.every=1 2>&1 | head -n 2 > two
    [ "$(wc -l < two)" -eq 2 ] && [ -d left/checkpoints/step-00000040 ]
}

@test "a terminal is told that it is being read" {
    command -v script > /dev/null || skip "script(1) is missing"
    { sleep 0.5; printf 'the bird\n\004'; } | timeout 10 script -qec "\"$ELBO\" tokenize run" /dev/null > typed
    grep -q 'reading standard input; end with Ctrl-D' typed
    echo 'the bird' | "$ELBO" tokenize run 2> said
    [ ! -s said ]
}
