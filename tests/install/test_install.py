#!/usr/bin/env python3
"""`cmake --install` into an empty prefix: programs in C and C++ build, link and run against it by pkg-config alone and
by find_package, shared and static. The libraries export nothing but elbo_*, so a program may have names like those
inside the library."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE, BUILD = pathlib.Path(os.environ["ELBO_SOURCE"]), pathlib.Path(os.environ["ELBO"]).parent
SENTENCES = [f"the {a} {b} {c}" for a in ("red", "blue", "old", "new") for b in ("bird", "boat", "house", "stone")
             for c in ("sings", "floats", "falls", "shines", "waits")]
STRICT = ["-Wall", "-Wextra", "-Werror"]
CLASH = """
#include <elbo/run.h>
#include <elbo/infer.h>
#include <elbo/corpus.h>
int pool_create(void) { return 7; }
int graph_node(void) { return 8; }
int main(void) { return elbo_version_number() == ELBO_VERSION_NUMBER && pool_create() + graph_node() == 15 ? 0 : 1; }
"""
PLUS = """
#include <elbo/corpus.h>
#include <elbo/infer.h>
#include <elbo/run.h>
#include <elbo/tokenizer.h>
#include <elbo/version.h>
#include <cstdio>
int main()
{
    elbo_error error = {};
    elbo_run *run = nullptr;
    if (elbo_run_open(&run, "/nowhere", 1, &error) != ELBO_IO) return 1;
    std::printf("%s %s %s\\n", elbo_version(), elbo_build_backends(), error.message);
    return 0;
}
"""
CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(user C CXX)
find_package(elbo REQUIRED)
add_executable(plus plus.cpp)
target_link_libraries(plus PRIVATE elbo::elbo)
add_executable(train ${EXAMPLES}/train.c)
target_link_libraries(train PRIVATE elbo::elbo)
"""


def call(*words, **keywords):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, **keywords)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def exported(*words):
    return {line.split()[-1].split("@")[0] for line in call("nm", "--defined-only", *words).splitlines()
            if len(line.split()) == 3}


def check_mpi(elbo, folder):
    """Ranks train with the installed program, and without the module it says what is missing."""
    options = [f"--data.train={folder / 'made/corpus'}", "--train.steps=2", "--train.slots=2", "--encoder.width=32",
               "--decoder.width=32", "--encoder.heads=2", "--decoder.heads=2", "--optimizer.warmup_steps=1"]
    if (elbo.parent.parent / "lib/elbo/elbo-mpi.so").exists():
        ranks = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        call("mpirun", "--oversubscribe", "-n", 2, elbo, "train", *options, f"--run.dir={folder / 'ranks'}", env=ranks)
        assert list((folder / "ranks").rglob("step-00000002*")), sorted((folder / "ranks").rglob("*"))
    alone = folder / "alone/elbo"
    alone.parent.mkdir()
    shutil.copy(elbo, alone)
    rank = {f"OMPI_COMM_WORLD_{name}": value for name, value in
            (("SIZE", "2"), ("RANK", "0"), ("LOCAL_SIZE", "2"), ("LOCAL_RANK", "0"))}
    done = subprocess.run([alone, "train", *options, f"--run.dir={folder / 'none'}"], capture_output=True, text=True,
                          check=False, env={**os.environ, **rank})
    assert done.returncode == 2 and "elbo-mpi.so is missing" in done.stderr, (done.returncode, done.stderr)


def main():
    if not (BUILD / "static/libelbo.a").exists():
        print("this build makes no libraries to install")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prefix, libraries = folder / "prefix", None
        call("cmake", "--install", BUILD, "--prefix", prefix)
        libraries = next(prefix.rglob("libelbo.so")).parent
        shared = exported("-D", libraries / "libelbo.so")
        assert shared and all(symbol.startswith("elbo_") for symbol in shared), sorted(shared)[:20]
        static = exported("-g", libraries / "libelbo.a")
        assert static == shared, sorted(static ^ shared)[:20]
        declared = {word.split("(")[0] for header in (prefix / "include/elbo").glob("*.h")
                    for line in header.read_text().splitlines() if line.startswith("ELBO_API")
                    for word in line.replace("*", " ").split() if word.startswith("elbo_") and "(" in word}
        infer_alone = {symbol for symbol in declared if symbol.startswith("elbo_infer_")}
        assert declared - infer_alone - shared == set(), declared - shared

        text = folder / "sentences.txt"
        text.write_text("".join(s + "\n" for s in SENTENCES))
        path = {**os.environ, "PKG_CONFIG_PATH": str(libraries / "pkgconfig"), "LD_LIBRARY_PATH": str(libraries)}

        def flags(*more):
            return call("pkg-config", *more, "elbo", env=path).split()

        for example in ("train", "encode"):
            call("cc", *STRICT, SOURCE / f"examples/{example}.c", *flags("--cflags", "--libs"), "-o", folder / example)
        said = call(folder / "train", text, folder / "made", env=path)
        assert said.count("\n") >= 6 and "80 sentences" in said, said
        rows = call(folder / "encode", folder / "made/run", text, env=path).splitlines()
        assert len(rows) == len(SENTENCES) and all(len(row.split()) == 8 for row in rows), rows[:3]

        (folder / "clash.c").write_text(CLASH)
        (folder / "plus.cpp").write_text(PLUS)
        needed = [flag for flag in flags("--static", "--libs") if flag != "-lelbo"]
        call("cc", folder / "clash.c", "-I", prefix / "include", libraries / "libelbo.a", *needed, "-o",
             folder / "clash")
        call(folder / "clash")
        call("c++", *STRICT, folder / "plus.cpp", *flags("--cflags", "--libs"), "-o", folder / "plus")
        assert "/nowhere" in call(folder / "plus", env=path)

        (folder / "user").mkdir()
        (folder / "user/CMakeLists.txt").write_text(CMAKE)
        shutil.copy(folder / "plus.cpp", folder / "user")
        call("cmake", "-S", folder / "user", "-B", folder / "user/build", f"-DCMAKE_PREFIX_PATH={prefix}",
             f"-DEXAMPLES={SOURCE / 'examples'}")
        call("cmake", "--build", folder / "user/build")
        call(folder / "user/build/plus")
        assert call(prefix / "bin/elbo", "--version").startswith("elbo ")
        commands = [line.split()[0] for line in call(prefix / "bin/elbo", "--help").splitlines()
                    if line.startswith("  ") and line[2:3].isalpha()]
        for command in ("elbo", *(f"elbo-{c}" for c in commands)):
            page = (prefix / f"share/man/man1/{command}.1").read_text()
            assert page.startswith(".TH") and ".SH NAME" in page, command
        for made, check in (("bash-completion/completions/elbo", "bash"), ("zsh/site-functions/_elbo", "zsh"),
                            ("fish/vendor_completions.d/elbo.fish", "fish")):
            assert "checkpoint.every" in (prefix / "share" / made).read_text(), made
            if shutil.which(check):
                call(check, "-n", prefix / "share" / made)
        check_mpi(prefix / "bin/elbo", folder)
    print(f"{len(shared)} functions are exported; programs in C and C++, shared and static, by pkg-config and CMake")
    return 0


sys.exit(main())
