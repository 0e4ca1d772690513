#!/usr/bin/env bats
# elbo launch: the environment of the ranks, the exit code for each way they end, which ranks are ended and started
# again, and that no process is left behind. Small shell commands stand for ranks. Checks for a fault are also tried on
# a launcher with that fault.

load common.bash

setup() { cd "$BATS_TEST_TMPDIR" || return; }

# Kills processes that a failing launcher has left.
teardown() {
    local file
    for file in "$BATS_TEST_TMPDIR"/pid.* "$BATS_TEST_TMPDIR"/faulty/pid.*; do
        [ ! -s "$file" ] || kill -9 "$(cat "$file")" 2> /dev/null || true
    done
}

# launch CODE WORDS ...: runs elbo launch WORDS and expects CODE; output and error go to `product` and `said`
launch() {
    local code=$1 got=0
    shift
    "$ELBO" launch --pause=0.05 "$@" > product 2> said || got=$?
    [ "$got" -eq "$code" ] || { echo "exit code $got instead of $code: $(cat said)"; return 1; }
}

says() { grep -qF -- "$1" said || { echo "'$1' is not in: $(cat said)"; return 1; }; }

# within SECONDS COMMAND ...: the command must succeed in this time
within() {
    local began=${EPOCHREALTIME/./} limit=$1
    shift
    "$@" || return 1
    local took=$((${EPOCHREALTIME/./} - began))
    [ "$took" -le "$(awk "BEGIN { print $limit * 1000000 }")" ] || { echo "took $took us"; return 1; }
}

# dead PID: the process has ended, or is a zombie that its new parent has not collected yet
dead() { ! kill -0 "$1" 2> /dev/null || grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"; }

# gone PID ...: none of the processes runs any more, within a second each
gone() {
    local pid i
    for pid in "$@"; do
        for ((i = 0; i < 100; i++)); do if dead "$pid"; then break; fi; sleep 0.01; done
        ((i < 100)) || { echo "process $pid is left: $(tr '\0' ' ' < "/proc/$pid/cmdline")"; kill -9 "$pid"; return 1; }
    done
}

# there FILE ...: waits until the files are not empty, ten seconds at most each
there() {
    local file i
    for file in "$@"; do
        for ((i = 0; i < 1000; i++)); do [ ! -s "$file" ] || break; sleep 0.01; done
        [ -s "$file" ] || { echo "$file never came"; return 1; }
    done
}

# A launcher that only starts ranks and waits for them.
faulty() {
    local n=$2 r code=0 pids=()
    while [ "$1" != -- ]; do shift; done
    shift
    for ((r = 0; r < n; r++)); do ELBO_RANK=$r ELBO_WORLD_SIZE=$n "$@" & pids+=($!); done
    for r in "${pids[@]}"; do wait "$r" || code=$?; done
    return "$code"
}

@test "each rank is told who it is, and all have one fresh secret and a port" {
    launch 0 -n 3 -- sh -c 'env | grep ^ELBO_ | sort > "env.$ELBO_RANK"'
    for r in 0 1 2; do
        for v in "RANK=$r" WORLD_SIZE=3 "LOCAL_RANK=$r" LOCAL_WORLD_SIZE=3 ADDRESS=127.0.0.1 RESTART=0; do
            grep -qx "ELBO_$v" "env.$r"
        done
        grep -qxE 'ELBO_SECRET=[0-9a-f]{64}' "env.$r"
        grep -qxE 'ELBO_PORT=[12][0-9]{4}' "env.$r"
        diff <(grep -v RANK env.0) <(grep -v RANK "env.$r")
    done
    cp env.0 before
    launch 0 -n3 -- sh -c 'env | grep ^ELBO_ | sort > "env.$ELBO_RANK"'
    differs <(grep SECRET before) <(grep SECRET env.0)
    lacks env.0 HEARTBEAT
}

@test "lines are told apart, and rank 0 keeps the standard output" {
    launch 0 -n 4 -- bash -c 'for ((i = 0; i < 500; i++)); do echo "line $i of $ELBO_RANK" >&2; done
        echo "product of $ELBO_RANK"; printf end >&2'
    [ "$(cat product)" = "product of 0" ]
    for r in 0 1 2 3; do
        seq -f "[$r] line %g of $r" 0 499 > wanted
        [ "$r" -eq 0 ] || echo "[$r] product of $r" >> wanted
        echo "[$r] end" >> wanted
        diff wanted <(grep -F "[$r]" said)
    done
    [ "$(wc -l < said)" -eq 2007 ]
    launch 0 -n 1 -- /usr/bin/python3 -c 'import sys; sys.stderr.write("x" * 20000 + "\n")'
    [ "$(tr -cd x < said | wc -c)" -eq 20000 ]
    [ "$(wc -l < said)" -eq 3 ]
}

@test "the exit code is that of the rank that failed, and it is named" {
    launch 0 -n 3 -- true
    launch 3 -n 3 -- sh -c '[ $ELBO_RANK != 1 ] || exit 3; sleep 30'
    says 'rank 1 ended with exit code 3; ending the others'
    launch 137 -n 3 -- sh -c '[ $ELBO_RANK != 2 ] || kill -9 $$; sleep 30'
    says 'rank 2 was killed by signal 9 (Killed)'
    launch 134 -n 2 -- sh -c '[ $ELBO_RANK != 0 ] || kill -ABRT $$; sleep 30'
    launch 2 -n 2 -- train --no.such=1
    says '] elbo: the command line: unknown option'
    launch 5 -- sh -c 'exit 5'
    says 'sh ended with exit code 5'
}

# ended LAUNCHER ...: when rank 1 of 4 is killed, the others must end within 2 s: one that heeds TERM, one that ignores
# it, and one that is stopped
ended() {
    local got=0
    timeout -k 1 3 "$@" -n 4 -- sh -c 'echo $$ > pid.$ELBO_RANK; case $ELBO_RANK in
        1) sleep 0.3; kill -9 $$ ;;
        2) trap "" TERM; while :; do sleep 0.1; done ;;
        3) kill -STOP $$ ;;
        *) sleep 30 ;; esac' > product 2> said || got=$?
    [ "$got" -eq 137 ] && says 'rank 1 was killed'
}

@test "when one rank dies the others are ended, stopped ones too" {
    export -f faulty
    mkdir faulty
    (cd faulty && ! within 2.3 ended bash -c 'faulty "$@"' faulty) > /dev/null & # must be found out
    local fault=$!
    within 2.3 ended "$ELBO" launch
    gone $(cat pid.*)
    # A rank that needs half a second to save gets it within the grace.
    for grace in 1.5 0; do
        launch 137 -n 2 --grace="$grace" -- sh -c '[ $ELBO_RANK = 0 ] || { sleep 0.1; kill -9 $$; }
            trap "sleep 0.5; echo x > saved.'"$grace"'; exit" TERM; while :; do sleep 0.05; done'
    done
    [ -s saved.1.5 ]
    [ ! -s saved.0 ]
    wait "$fault"
}

@test "what a restart can mend is started again, and counted" {
    launch 0 -n 2 --max-restarts=3 -- sh -c 'echo $ELBO_RESTART >> starts.$ELBO_RANK
        [ $ELBO_RESTART = 2 ] || { [ $ELBO_RANK = 0 ] || { sleep 0.1; kill -9 $$; }; sleep 30; }'
    for r in 0 1; do [ "$(echo $(cat starts.$r))" = "0 1 2" ]; done
    says 'restart 1 of 3 in 0.05 s'
    says 'restart 2 of 3 in 0.1 s'
    rm starts.*
    launch 8 -n 1 --max-restarts=2 -- sh -c 'echo $ELBO_SECRET >> starts; exit 8' # the device failed
    [ "$(sort -u starts | wc -l)" -eq 3 ] # each start has its own secret
    says 'after 2 restarts'
    for code in 1 2 3 4 5 6 7; do
        rm -f starts
        launch "$code" -n 1 --max-restarts=2 -- sh -c "echo x >> starts; exit $code"
        [ "$(wc -l < starts)" -eq 1 ]
        says 'starting again would not mend it'
    done
    rm starts
    launch 9 -n 1 --max-restarts=2 -- sh -c 'echo x >> starts; exit 9'
    [ "$(wc -l < starts)" -eq 1 ]
    rm starts
    ELBO_SECRET=given launch 0 -- sh -c 'echo $ELBO_SECRET > secret' # ranks on other hosts share the given secret
    [ "$(cat secret)" = given ]
    launch 137 --max-restarts=1 -- sh -c 'echo $ELBO_RESTART${ELBO_RANK-none} >> starts; exit 137' # as mpirun says it
    [ "$(echo $(cat starts))" = "0none 1none" ]
    rm starts
    launch 1 --max-restarts=1 -- sh -c 'echo $ELBO_RESTART >> starts; exit 1' # mpirun that has lost a rank
    [ "$(echo $(cat starts))" = "0 1" ]
    rm starts
    launch 2 --max-restarts=1 -- sh -c 'echo $ELBO_RESTART >> starts; exit 2'
    [ "$(echo $(cat starts))" = 0 ]
}

# forwarded SIGNAL LAUNCHER ...: the signal must reach both ranks once, even if it is sent twice. Rank 0 may take its
# time to save after rank 1 has ended, and must not count as hung.
forwarded() {
    local signal=$1 launcher r got=0
    shift
    rm -f ready.* got.* saved starts
    "$@" -n 2 --max-restarts=2 --grace=0.2 --hang-timeout=1 -- bash -c '
        trap "echo x >> got.$ELBO_RANK" TERM INT USR1
        echo x >> starts; echo x > ready.$ELBO_RANK
        for ((i = 0; i < 60; i++)); do
            if [ -s got.$ELBO_RANK ] && ((stopped++ > 6)); then # time for a second signal
                [ $ELBO_RANK = 1 ] || { sleep 1.5; echo x > saved; }
                exit 9
            fi
            sleep 0.05
            [ -z "$ELBO_HEARTBEAT_FD" ] || printf . >&$ELBO_HEARTBEAT_FD
        done' > product 2> said &
    launcher=$!
    there ready.0 ready.1
    kill -"$signal" "$launcher"
    if [ "$signal" = USR1 ]; then there got.0 got.1; kill -USR1 "$launcher"; fi
    wait "$launcher" || got=$?
    for r in 0 1; do [ -s got.$r ] && [ "$(wc -l < got.$r)" -eq 1 ] || return 1; done
    [ "$got" -eq 9 ] && [ -s saved ] && [ "$(wc -l < starts)" -eq 2 ]
}

@test "signals go to every rank once, and an orderly end is waited for" {
    for signal in TERM INT USR1 HUP; do # in parallel, because they mostly wait; HUP reaches the ranks as TERM
        mkdir "$signal"
        (cd "$signal" && forwarded "$signal" "$ELBO" launch) &
        pids+=($!)
    done
    mkdir faulty
    (cd faulty && ! forwarded TERM faulty) & # a launcher that forwards nothing must be found out
    pids+=($!)
    for pid in "${pids[@]}"; do wait "$pid"; done
}

@test "a second signal does not wait for who does not listen" {
    "$ELBO" launch -n 2 --grace=0.3 -- \
        bash -c 'trap "" TERM; echo $$ > pid.$ELBO_RANK; while :; do sleep 0.1; done' 2> said &
    there pid.0 pid.1
    kill -TERM $!
    sleep 0.2
    kill -0 $!
    kill -TERM $!
    local got=0
    within 1 wait $! || got=$?
    says 'a second signal'
    gone $(cat pid.*)
}

@test "no process outlives the launcher: its children's children, who left their group, or when it is killed" {
    launch 0 -n 2 -- sh -c 'sleep 60 & echo $! > a.$ELBO_RANK; setsid sleep 60 & sleep 0.1
        cat /proc/$$/task/$$/children > b.$ELBO_RANK; exit 0'
    [ "$(cat b.* | wc -w)" -ge 4 ]
    gone $(cat a.* b.*)
    "$ELBO" launch -n 2 -- sh -c 'echo $$ > pid.$ELBO_RANK; exec sleep 60' &
    there pid.0 pid.1
    kill -9 $!
    gone $(cat pid.*)
    wait $! || true
}

@test "a rank without a heartbeat is named, and all are started again" {
    # Rank 1 stops its heartbeat in the first start.
    launch 0 -n 2 --hang-timeout=0.4 --max-restarts=1 -- bash -c 'echo $$ >> pids; for i in 1 2 3 4 5 6; do sleep 0.1
        [ $ELBO_RANK$ELBO_RESTART$i = 103 ] && kill -STOP $$; printf . >&$ELBO_HEARTBEAT_FD; done'
    says 'rank 1 hangs: no heartbeat for 0.4 s; restart 1 of 1'
    [ "$(wc -l < pids)" -eq 4 ]
    gone $(cat pids)
    launch 137 -n 2 --hang-timeout=0.2 --grace=0.2 -- sh -c 'trap "" TERM; while :; do sleep 0.1; done'
    says 'hangs'
    launch 0 -n 2 -- sleep 0.5 # no hang timeout by default
}

@test "behind another launcher a stopped process is found" {
    launch 0 --hang-timeout=0.6 --max-restarts=1 --grace=0.2 -- \
        sh -c 'echo $ELBO_RESTART${ELBO_HEARTBEAT_FD-none} >> starts
        [ $ELBO_RESTART = 1 ] || sh -c "echo \$\$ > pid; kill -STOP \$\$"; sleep 1'
    grep -qE 'process [0-9]+ has been stopped for [0-9.]+ s; restart 1 of 1' said
    [ "$(echo $(cat starts))" = "0none 1none" ]
    gone "$(cat pid)"
}

@test "a training that is killed goes on to the bits of one that was not" {
    "$ELBO_SOURCE/scripts/grammar-text" --sentences=300 --seed=1 --out=text.txt
    "$ELBO" prepare text.txt --out=corpus --tokenizer.size=60 > /dev/null
    options=("${tiny[@]}" --train.steps=120 --checkpoint.every=20 --data.train=corpus)
    "$ELBO" train "${options[@]}" --run.dir=whole 2> /dev/null
    "$ELBO" launch -n 1 --max-restarts=1 --pause=0 -- train "${options[@]}" --run.dir=run 2> said &
    there run/checkpoints/step-00000040/model.safetensors
    kill -9 $(cat "/proc/$!/task/$!/children")
    wait $!
    says 'rank 0 was killed by signal 9 (Killed); restart 1 of 1'
    cmp {whole,run}/checkpoints/step-00000120/model.safetensors
}

@test "in front of mpirun" {
    command -v mpirun > /dev/null || skip "there is no mpirun"
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    launch 0 --max-restarts=2 -- mpirun --oversubscribe -n 2 sh -c 'echo $ELBO_RESTART >> starts
        [ $ELBO_RESTART = 1 ] || { [ $OMPI_COMM_WORLD_RANK = 0 ] || { sleep 0.1; kill -9 $$; }; exec sleep 30; }'
    says 'mpirun ended with exit code 137; restart 1 of 2'
    [ "$(wc -l < starts)" -eq 4 ]
}

@test "what cannot be is refused" {
    refused 2 'needs a command behind --' -- "$ELBO" launch -n 2
    refused 2 'needs a command behind --' -- "$ELBO" launch -n 2 --
    refused 2 "does not take 'train'" -- "$ELBO" launch train --
    refused 2 "n = '0x2'" -- "$ELBO" launch -n 0x2 -- train
    refused 2 "n = '-1'" -- "$ELBO" launch -n -1 -- train
    refused 2 'mpirun starts the ranks itself' -- "$ELBO" launch -n 2 -- /usr/bin/mpirun -n 2 x
    refused 2 "cannot start 'no-such-program': No such file" -- "$ELBO" launch -n 2 -- no-such-program
    refused 2 "unknown option" -- "$ELBO" launch --max-restart=2 -- train
}
