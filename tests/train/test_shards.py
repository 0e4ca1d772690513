"""Checkpoints of moments that ranks share: one file per rank, with the same numbers together; a rank that cannot write,
does not see the run directory, or has a damaged file."""
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "job"))
import test_trainings as trainings
from runs import Scratch, bits, checkpoints, corpus, same


def around_rank_1(run, data, given, shell):
    """Runs a training of three ranks; rank 1 is started by `shell`, in which "$@" is the command."""
    words = trainings.command(3, run, data, given)
    shell = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] || exec "$@"\n{shell}'
    return subprocess.run([*words[:4], "bash", "-c", shell, "bash", *words[4:]], env=trainings.MPI, capture_output=True,
                          text=True, check=False)


def check_shards(scratch, data, whole):
    """Every rank writes its share of the moments. A rank that cannot write fails the save on all ranks, and a damaged
    share fails the checkpoint."""
    given = {"parallel.zero": 1, "train.steps": 30, "train.eval_every": 0}
    state = checkpoints(scratch / "zero-3")[-1] / "state"
    assert sorted(path.name for path in state.glob("*-of-*")) == [f"optimizer-{rank}-of-3.safetensors"
                                                                  for rank in range(3)]
    answer = around_rank_1(scratch / "small", data, given, 'trap "" XFSZ; ulimit -f 1; exec "$@"')
    assert answer.returncode == 4 and "rank 1: " in answer.stderr and "step 30/30" in answer.stderr, \
        answer.stderr[-3000:]
    assert "step 27 was not saved" in answer.stderr and not any((scratch / "small" / "checkpoints").iterdir()), \
        answer.stderr[-3000:]
    # Rank 1 sees another folder under the run directory's name.
    if not subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        shell = f'mkdir -p "{scratch}/apart"; exec unshare -m bash -c \'mount -t tmpfs none "{scratch}/apart" && ' \
                'exec "$@"\' bash "$@"'
        answer = around_rank_1(scratch / "apart", data, {**given, "train.steps": 100, "train.eval_every": 33}, shell)
        assert answer.returncode == 0, answer.stderr[-3000:]
        assert not list((checkpoints(scratch / "apart")[-1] / "state").glob("*-of-*"))
        same(whole, bits(scratch / "apart"), "a rank that does not see the run directory")
    damaged = state / "optimizer-1-of-3.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    said = trainings.train(2, scratch / "zero-3", data, {"parallel.zero": 1, "train.steps": 101}, code=None).stderr
    assert "optimizer-1-of-3.safetensors" in said and re.search(r"resuming from .*step-00000081", said), said[-3000:]


def main():
    if not shutil.which("mpirun"):
        print("SKIP: no mpirun")
        sys.exit(77)
    with Scratch() as scratch:
        data = corpus(scratch)
        trainings.train(1, scratch / "one", data)
        whole = bits(scratch / "one")
        trainings.train(3, scratch / "zero-3", data, {"parallel.zero": 1})
        same(whole, bits(scratch / "zero-3"), "ZeRO on 3 ranks")
        check_shards(scratch, data, whole)


if __name__ == "__main__":
    main()
