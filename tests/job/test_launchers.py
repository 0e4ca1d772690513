"""Tests launchers that are large to install, with ELBO_TEST_FULL=1: torchrun of PyPI's PyTorch in bench/peers/venv
(Debian's 1.13 starts nothing under its own Python) and srun, with a one-node Slurm that this test starts. Under each
launcher, two ranks of emulated GPUs must train to the bits of one rank. With torchrun's --max-restarts, a run whose
rank dies must continue from its last checkpoint."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import ELBO, TINY, Scratch, bits, corpus, options, same

SIM = pathlib.Path(os.environ.get("ELBO_CUDA", pathlib.Path(ELBO).with_name("elbo-sim")))
SOURCE = pathlib.Path(os.environ.get("ELBO_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
GIVEN = {**TINY, "device": "cuda", "train.slots": 4, "train.steps": 8, "train.eval_every": 0, "checkpoint.every": 3,
         "log.every": 1, "determinism": "world_invariant", "parallel.timeout": 60, "parallel.bucket": 0.02}
SLURM = """ClusterName=elbo-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={other}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def words(run, data, given=None):
    return list(map(str, [SIM, "train", f"--data.train={data}", f"--run.dir={run}",
                          *options({**GIVEN, **(given or {})})]))


def call(command, **keywords):
    answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300,
                            **keywords)
    assert answer.returncode == 0, \
        f"{command} ended with {answer.returncode}:\n{answer.stdout[-2000:]}{answer.stderr[-4000:]}"
    return answer.stdout + answer.stderr


def check_torchrun(torchrun, scratch, data, whole):
    version = call([torchrun.with_name("python3"), "-c", "import torch; print(torch.__version__)"]).strip()
    launch = [torchrun, "--no-python", "--nnodes=1", "--nproc_per_node=2", f"--master_port={free_port()}"]
    run = scratch / f"torchrun-{version}"
    said = call([*launch, *words(run, data)])
    assert "of 2 (torchrun), " in said, said[-2000:]
    same(whole, bits(run), f"torchrun {version}")
    # Rank 1 of the first start dies right after the checkpoint of step 3; torchrun restarts all ranks.
    broken = scratch / f"broken-{version}"
    script = scratch / "dies.sh"
    script.write_text('if [ "$RANK" = 1 ] && [ "$TORCHELASTIC_RESTART_COUNT" = 0 ]; then\n'
                      '    "$@" & child=$!\n'
                      f'    for i in $(seq 3000); do [ ! -e "{broken}/checkpoints/step-00000003" ] || break; sleep '
                      '0.01; done\n'
                      "    kill -9 $child; exit 1\nfi\n" 'exec "$@"\n')
    said = call([*launch, "--max_restarts=1", "sh", script,
                 *words(broken, data, {"train.steps": 60, "parallel.timeout": 5})])
    straight = scratch / "sixty"
    if not straight.exists():
        call(words(straight, data, {"train.steps": 60}))
    same(bits(straight, metrics=False), bits(broken, metrics=False), f"torchrun {version}, started again")
    print(f"torchrun {version}: the bits of one rank, also after a restart")


@contextlib.contextmanager
def slurm(at):
    for folder in ("state", "spool"):
        (at / folder).mkdir(parents=True)
    file = at / "slurm.conf"
    file.write_text(SLURM.format(host=socket.gethostname().split(".")[0], at=at, port=free_port(), other=free_port(),
                                 user=os.environ.get("USER", "root")))
    environment = {**os.environ, "SLURM_CONF": str(file)}
    jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in (["slurmctld", "-D", "-c", "-f", file], ["slurmd", "-D", "-f", file])]
    try:
        for _ in range(300):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True,
                                   check=False).stdout
            if state.strip() in ("idle", "mixed"):
                break
            time.sleep(0.1)
        else:
            sys.exit("Slurm does not come up: "
                     f"{state}\n{(at / 'slurmctld.log').read_text()[-2000:]}\n"
                     f"{(at / 'slurmd.log').read_text()[-2000:]}")
        yield environment
    finally:
        for job in reversed(jobs):
            job.terminate()
            job.wait()


def check_srun(scratch, data, whole):
    with slurm(scratch / "slurm") as environment:
        said = call(["srun", "-n", "2", *words(scratch / "srun", data)], env=environment)
        assert "of 2 (Slurm" in said, said[-2000:]
        same(whole, bits(scratch / "srun"), "srun")
        # A batch script is not a step, so it is one rank, whatever its variables say; the step inside it has two ranks.
        script = scratch / "batch.sh"
        alone, both = scratch / "batch-alone", scratch / "batch-step"
        script.write_text("#!/bin/sh\n" + " ".join(words(alone, data)) + " && srun -n 2 " + " ".join(words(both, data))
                          + "\n")
        call(["sbatch", "--wait", "-n", "2", "-o", scratch / "batch.log", script], env=environment)
        same(whole, bits(alone), "a batch script")
        same(whole, bits(both), "srun in a batch script")
    print("srun: the bits of one rank, in a batch script too")


def main():
    if os.environ.get("ELBO_TEST_FULL") != "1" or not SIM.exists():
        print("SKIP: only with ELBO_TEST_FULL=1")
        sys.exit(77)
    torchrun = SOURCE / "bench/peers/venv/bin/torchrun"
    has_slurm = shutil.which("slurmd") and shutil.which("srun")
    if not torchrun.exists() and not has_slurm:
        print("SKIP: neither bench/peers/venv/bin/torchrun nor slurmd is here: scripts/setup --full")
        sys.exit(77)
    with Scratch() as scratch:
        data = corpus(scratch)
        call(words(scratch / "one", data))
        whole = bits(scratch / "one")
        if torchrun.exists():
            check_torchrun(torchrun, scratch, data, whole)
        else:
            print("not tried: torchrun, which is not in bench/peers/venv")
        if has_slurm:
            check_srun(scratch, data, whole)
        else:
            print("not tried: srun, without Debian's slurmd")
    sys.exit(0)


if __name__ == "__main__":
    main()
