"""Saving a checkpoint, interrupted everywhere. A run holds steps 1 and 2; step 3 is saved, which also deletes step 1.

  killed    the process is killed at each of its system calls; then 2 or 3 opens, and the next save works
  failing   each system call in turn answers EIO: the save reports it or succeeds; 2 or 3 opens
  power     the recorded system calls are replayed up to each point, and what was not synced by then is dropped, kept or
            torn, names and data apart: 2 or 3 opens, and once the save has returned, 3 opens
  seeded    the same replay with fsync taken away must find checkpoints lost: a harness that cannot fail proves nothing

ELBO_TEST_FULL=1 takes more random power failures."""
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

DRIVER = os.path.join(os.environ.get("ELBO_TESTS", "build/release/tests"), "train_test_checkpoint")
CALLS = "openat,write,pwrite64,fsync,close,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir"
RANDOM_STATES = 60 if os.environ.get("ELBO_TEST_FULL") else 4  # at each point of the recording
# The leak checker cannot run below strace.
QUIET = {"env": {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def driver(*arguments, below=()):
    return subprocess.run([*below, DRIVER, *map(str, arguments)], **QUIET)


def opened(run):
    """The step that opens with its contents, or what was said instead."""
    answer = driver("open", run)
    return int(answer.stdout) if answer.returncode == 0 else f"exit {answer.returncode}: {answer.stderr.decode()}"


def fresh(scratch):
    """A run with steps 1 and 2, copied from a template."""
    template, run = scratch / "template", scratch / "run"
    if not template.exists():
        template.mkdir()
        for step in (1, 2):
            answer = driver("save", template, step, 2)
            assert answer.returncode == 0, answer.stderr
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(template, run)
    return run


def record(scratch):
    """The system calls of a save: (name, arguments, result), strings as bytes, all else as text."""
    log, run = scratch / "log", fresh(scratch)
    answer = driver("save", run, 3, 2, below=["strace", "-f", "-qq", "-xx", "-s", "1000000", "-o", log, "-e", f"trace={CALLS}"])
    assert answer.returncode == 0, answer.stderr
    calls = []
    for line in log.read_text(encoding="ascii").splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
        if match:
            words = re.findall(r'"(?:\\x[0-9a-f]{2})*"|[^,\s]+', match.group(2))
            arguments = [bytes.fromhex(w[1:-1].replace("\\x", "")) if w[0] == '"' else w for w in words]
            calls.append((match.group(1), arguments, int(match.group(3))))
    return calls


# ---- killed and failing ----

def inject(scratch, calls, effect):
    """Injects `effect` into every call of the recording, one run each. strace counts each system call by itself."""
    seen, points, loading = {}, [], True
    for name, arguments, _ in calls:
        seen[name] = seen.get(name, 0) + 1
        loading = loading and not any(isinstance(a, bytes) and a.startswith(os.fsencode(scratch)) for a in arguments)
        if not loading:  # the program's own calls, not those of the loader before it
            points.append((name, seen[name]))
    for name, n in points:
        run, what = fresh(scratch), f"{effect} at {name} number {n}"
        answer = driver("save", run, 3, 2, below=["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}",
                                                  "-e", f"inject={name}:{effect}:when={n}"])
        step = opened(run)
        assert step in (2, 3), f"{what}: {step}"
        if effect.startswith("error"):
            assert answer.returncode in (0, 4), f"{what}: exit {answer.returncode}: {answer.stderr.decode()}"
            assert answer.returncode != 0 or step == 3, f"{what}: said to be saved, but {step} opens"
        following = driver("save", run, 4, 2)
        assert following.returncode == 0, f"{what}: the next save fails: {following.stderr.decode()}"
        assert opened(run) == 4, what
        left = [p.name for p in (run / "checkpoints").iterdir() if p.suffix == ".tmp"]
        assert not left, f"{what}: {left} stay"
    return len(points)


# ---- power failures ----

class Recording:
    """The calls as events on numbered nodes: ("names", [(folder, name, node or None), ...]), ("data", file, bytes),
    ("sync", node)."""

    def __init__(self, scratch, calls):
        self.root = os.fsencode(scratch / "run")
        self.names, self.data, self.events = {}, {}, []   # folder: {name: node}; file: bytes; as they were before
        self.top = self.load(scratch / "template")
        now = {folder: dict(names) for folder, names in self.names.items()}
        files = {}
        for call, arguments, result in calls:
            if result >= 0:
                self.interpret(call, arguments, result, now, files)

    def node(self, folder):
        number = len(self.names) + len(self.data)
        if folder:
            self.names[number] = {}
        else:
            self.data[number] = b""
        return number

    def load(self, path):
        number = self.node(path.is_dir())
        if path.is_dir():
            self.names[number] = {os.fsencode(p.name): self.load(p) for p in path.iterdir()}
        else:
            self.data[number] = path.read_bytes()
        return number

    def interpret(self, call, arguments, result, now, files):
        paths = [a for a in arguments if isinstance(a, bytes)]
        base = files.get(arguments[0]) if call in ("unlinkat", "openat", "mkdirat") else None

        def place(path):
            folder = self.top
            if base is not None and not path.startswith(b"/"):
                return base, path
            if path == self.root:
                return None, self.top
            if not path.startswith(self.root + b"/"):
                return None, None
            *above, last = path[len(self.root) + 1:].rstrip(b"/").split(b"/")
            for name in above:
                folder = now[folder][name]
            return folder, last

        def change(*edits):
            for folder, name, node in edits:
                now[folder].pop(name, None)
                if node is not None:
                    now[folder][name] = node
            self.events.append(("names", edits))

        if call == "openat":
            folder, name = place(paths[0])
            files.pop(str(result), None)
            if name is None:
                return
            if folder is not None and "O_CREAT" in arguments[2] and name not in now[folder]:
                change((folder, name, self.node(False)))
            files[str(result)] = name if folder is None else now[folder][name]
        elif call == "close":
            files.pop(arguments[0], None)
        elif call == "write" and arguments[0] in files:
            self.events.append(("data", files[arguments[0]], arguments[1][:result]))
        elif call == "fsync":
            self.events.append(("sync", files[arguments[0]]))
        elif call in ("mkdir", "mkdirat"):
            folder, name = place(paths[0])
            node = self.node(True)
            now[node] = {}
            change((folder, name, node))
        elif call.startswith("rename"):
            (a, x), (b, y) = map(place, paths)
            exchange = any("RENAME_EXCHANGE" in w for w in arguments if isinstance(w, str))
            change((a, x, now[b].get(y) if exchange else None), (b, y, now[a][x]))
        elif call in ("unlink", "unlinkat", "rmdir"):
            folder, name = place(paths[0])
            if folder is not None:
                change((folder, name, None))
        elif call not in ("write",):
            raise ValueError(f"{call} is not modelled")

    def crash(self, end, keep_names, tear, ignored=()):
        """The tree that a power failure after `end` events leaves. keep_names() decides on each change of names that was not
        synced, tear(synced, full) on the data of a file; `ignored` is "files" or "folders": whose fsync does nothing."""
        names = {folder: dict(entries) for folder, entries in self.names.items()}
        synced, full, pending = {}, dict(self.data), []
        for file, before in self.data.items():
            synced[file] = before

        def settle(edits):
            for folder, name, node in edits:
                names[folder].pop(name, None)
                if node is not None:
                    names[folder][name] = node

        for event in self.events[:end]:
            if event[0] == "names":
                pending.append(event[1])
            elif event[0] == "data":
                full[event[1]] += event[2]
            elif event[1] in names and "folders" not in ignored:
                for edits in [e for e in pending if any(f == event[1] for f, _, _ in e)]:
                    settle(edits)
                    pending.remove(edits)
            elif event[1] in full and "files" not in ignored:
                synced[event[1]] = full[event[1]]
        for edits in pending:
            if keep_names():
                settle(edits)

        def freeze(node, depth=0):
            if node in full:
                return tear(synced[node], full[node])
            assert depth < 8
            return {name: freeze(child, depth + 1) for name, child in names[node].items()}

        return freeze(self.top)


def write_tree(path, tree):
    path.mkdir()
    for name, what in tree.items():
        if isinstance(what, dict):
            write_tree(path / os.fsdecode(name), what)
        else:
            (path / os.fsdecode(name)).write_bytes(what)


def torn(rng):
    def tear(synced, full):
        if synced == full:
            return full
        kind = rng.randrange(4)
        if kind == 0:
            return synced
        if kind == 1:
            return full
        cut = rng.randrange(len(synced), len(full) + 1)
        return full[:cut] + (b"" if kind == 2 else bytes(len(full) - cut))
    return tear


def power(scratch, recording, ignored=(), stop_at_first=False):
    """Bad states found, and how many were looked at."""
    rng, bad, seen, states = random.Random(5), [], {}, 0
    run = scratch / "run"
    strategies = [(lambda: False, lambda s, f: s), (lambda: True, lambda s, f: s), (lambda: False, lambda s, f: f)]
    strategies += [(lambda: rng.random() < 0.5, torn(rng))] * RANDOM_STATES
    for end in range(len(recording.events) + 1):
        for keep, tear in strategies:
            tree = recording.crash(end, keep, tear, ignored)
            states += 1
            key = repr(tree)
            if key not in seen:
                shutil.rmtree(run, ignore_errors=True)
                write_tree(run, tree)
                seen[key] = opened(run)
            wanted = (3,) if end == len(recording.events) else (2, 3)
            if seen[key] not in wanted:
                bad.append(f"after event {end} of {len(recording.events)}: {seen[key]}")
                if stop_at_first:
                    return bad, states
    return bad, states


def main():
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], **QUIET).returncode:
        print("strace is missing or may not trace here: nothing was tested")
        sys.exit(77)  # ctest counts it as skipped
    with tempfile.TemporaryDirectory(prefix="elbo-crash-") as name:
        scratch = pathlib.Path(name)
        calls = record(scratch)
        recording = Recording(scratch, calls)

        bad, states = power(scratch, recording)
        assert not bad, "\n".join(bad[:5])
        print(f"power: {states} states, none bad")
        for ignored in ("files", "folders"):
            bad, states = power(scratch, recording, ignored, stop_at_first=True)
            assert bad, f"without fsync of {ignored} nothing was found: the replay is blind"
            print(f"seeded: without fsync of {ignored}, found bad after {states} states")

        print(f"killed at {inject(scratch, calls, 'signal=KILL')} system calls, none bad")
        print(f"failing at {inject(scratch, calls, 'error=EIO')} system calls, none bad")


if __name__ == "__main__":
    main()
