#!/usr/bin/env bats
# Processes meet like the ranks of a training, under each available launcher: elbo launch, mpirun, torchrun's variables,
# the options, and on two hosts, which are two network namespaces.

setup() {
    cd "$BATS_TEST_TMPDIR" || return
    meet=$ELBO_TESTS/job_dump_meeting
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    unset ELBO_SECRET XDG_RUNTIME_DIR
}

# met N TEXT: N processes printed a line with TEXT, and all had the same bytes, which are not zero
met() {
    [ "$(grep -cF -- "$2" out)" -eq "$1" ] || { cat out; return 1; }
    local ids
    ids=$(grep -F -- "$2" out | sed 's/.* | //' | sort -u)
    [[ $ids =~ ^[0-9a-f]{32}$ && ! $ids =~ ^0*$ ]] || { cat out; return 1; }
}

@test "alone" {
    "$meet" > out
    grep -q 'one rank: no launcher started several' out
}

@test "elbo launch" {
    "$ELBO" launch -n 4 -- "$meet" > out 2>&1
    met 4 'of 4 (elbo launch)'
    for r in 0 1 2 3; do grep -q "rank $r of 4" out; done
}

@test "elbo launch, after a rank was killed before it came" {
    "$ELBO" launch -n 4 --max-restarts=1 --pause=0 -- \
        sh -c '[ $ELBO_RANK$ELBO_RESTART != 20 ] || kill -9 $$; exec "$0"' "$meet" > out 2>&1
    grep -v ^launch: out > rest && mv rest out
    met 4 'restart 1'
}

@test "elbo launch, where a rank does not come" {
    local code=0
    "$ELBO" launch -n 3 -- sh -c '[ $ELBO_RANK != 1 ] || exec sleep 20; exec "$0" 0.5' "$meet" > out 2>&1 || code=$?
    [ "$code" -eq 10 ]
    grep -qE '^\[0\] rank 0 waited [0-9.]+ s at 127.0.0.1:[0-9]+, but of 3 ranks 1 did not come: 1\.' out
}

@test "mpirun, without a secret and with that of elbo launch" {
    command -v mpirun > /dev/null || skip "there is no mpirun"
    mpirun --oversubscribe -n 4 "$meet" > out
    met 4 'of 4 (Open MPI)'
    "$ELBO" launch -- mpirun --oversubscribe -n 3 "$meet" > out
    met 3 'of 3 (Open MPI)'
}

@test "torchrun's variables, while its own store holds the port" {
    local port=$((12000 + RANDOM % 8000)) r
    /usr/bin/python3 -c "import socket, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', $port)); s.listen(); open('held', 'w').close(); time.sleep(20)" &
    local store=$!
    for ((r = 0; r < 500; r++)); do [ ! -e held ] || break; sleep 0.01; done
    for r in 0 1; do
        RANK=$r WORLD_SIZE=2 LOCAL_RANK=$r LOCAL_WORLD_SIZE=2 GROUP_RANK=0 MASTER_ADDR=$(hostname) MASTER_PORT=$port \
            TORCHELASTIC_RESTART_COUNT=0 "$meet" > "out.$r" &
        pids+=($!)
    done
    for r in "${pids[@]}"; do wait "$r"; done
    kill "$store"
    cat out.0 out.1 > out
    met 2 "of 2 (torchrun), "
    grep -q "rank 1 of 2 (torchrun), 1 of 2 on this host, meeting at 127.0.0.1:$((port + 1))" out
}

@test "the options" {
    local port=$((20000 + RANDOM % 8000)) r
    for r in 0 1 2; do MEET_RANKS=3 MEET_RANK=$r MEET_PORT=$port "$meet" > "out.$r" & pids+=($!); done
    for r in "${pids[@]}"; do wait "$r"; done
    cat out.? > out
    met 3 "of 3 (--parallel.rank)"
}

@test "two hosts: with the secret they meet, without it they are refused, with another they do not" {
    unshare -Urn true 2> /dev/null && command -v ip > /dev/null || skip "no network namespaces"
    export meet
    # Host a is this namespace; host b is a child's namespace, connected by a pair of virtual network devices.
    cat > hosts <<'END'
set -e
ip link set lo up
unshare -n sleep 20 &
b=$!
for ((i = 0; i < 500; i++)); do
    [ "$(readlink /proc/$b/ns/net)" = "$(readlink /proc/$$/ns/net)" ] || break
    sleep 0.01
done
on_b() { nsenter -t "$b" -n env MEET_AT=10.9.8.1 MEET_PORT=23456 MEET_RANKS=2 MEET_RANK=1 "$@"; }
on_a() { env MEET_AT=10.9.8.1 MEET_PORT=23456 MEET_RANKS=2 MEET_RANK=0 "$@"; }
ip link add va type veth peer name vb netns "$b"
ip addr add 10.9.8.1/24 dev va && ip link set va up
nsenter -t "$b" -n ip addr add 10.9.8.2/24 dev vb
nsenter -t "$b" -n ip link set vb up
on_a "$meet" > a.none 2>&1 || echo $? > a.none.code
on_b "$meet" > b.none 2>&1 || echo $? > b.none.code
export ELBO_SECRET=0123456789abcdef0123456789abcdef
on_a "$meet" > a.good 2>&1 &
on_b "$meet" > b.good 2>&1
wait $!
on_a "$meet" 1 > a.other 2>&1 || echo $? > a.other.code &
ELBO_SECRET=x$ELBO_SECRET on_b "$meet" 1 > b.other 2>&1 || echo $? > b.other.code
wait $!
ip link set va down # the cable is cut
on_a "$meet" 0.5 > a.cut 2>&1 || true &
on_b "$meet" 0.5 > b.cut 2>&1 || true
wait $!
kill "$b"
END
    unshare -Urn bash hosts
    for host in a b; do
        grep -q 'set the variable ELBO_SECRET' "$host.none"
        [ "$(cat "$host.none.code")" -eq 2 ]
    done
    cat a.good b.good > out
    met 2 'meeting at 10.9.8.1:23456'
    for host in a b; do [ "$(cat "$host.other.code")" -eq 10 ]; done
    grep -q 'did not come: 1. Of those who came, [1-9][0-9]* did not know the secret' a.other
    grep -q 'rank 0 waited [0-9.]* s at 10.9.8.1:23456' a.cut
    grep -q 'rank 1 did not meet rank 0 at 10.9.8.1:23456 within 0.5 s' b.cut
}
