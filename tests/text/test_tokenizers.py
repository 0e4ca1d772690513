"""The package `tokenizers`, with elbo's vocabulary, gives elbo's ids, line by line, in mixed scripts, whichever program
learned the merges. The time of `elbo tokenize` grows as n log n on hostile input.

As controls, a vocabulary with two merges swapped and ids with one changed line are found, and so is a quadratic
encoder. bench/peers/tokenizers runs the same on 20 MB and 10^7 bytes. Without `tokenizers` (bench/peers/tokenizers
--setup) the comparison is skipped, and the growth is still measured."""
import pathlib
import sys
import tempfile

import mixed_scripts
import peer_tokenizers as peers

SKIPPED = 77


def check(holds, words):
    if not holds:
        sys.exit(f"failed: {words}")


def same_ids(folder):
    lines = mixed_scripts.mixed_lines(300_000, seed=7)
    learn = lines[:len(lines) // 2]
    theirs = folder / "theirs.json"
    peers.train_peer(learn, 2000).save(str(theirs))
    files = {"elbo": peers.train_elbo(folder, learn, 2000), "tokenizers": theirs}
    for trainer, file in files.items():
        merges = peers.read_merges(file)
        check(len(merges) > 1500, f"{trainer} learned {len(merges)} merges")
        ours = file
        if trainer != "elbo":
            ours = folder / "ours.json"
            peers.write_elbo(ours, merges)
        a, b = peers.elbo_ids(ours, lines), peers.peer_ids(peers.peer(merges), lines)
        ids, different, first = peers.compare(a, b)
        check(ids > 50_000, f"{ids} ids were compared")
        check(not different,
              f"trained by {trainer}: {different} of {len(lines)} lines differ, first {lines[first or 0]!r}")
        check(peers.compare(a, b[:5] + [b[5] + b" 3"] + b[6:])[1] == 1, "a changed line is not seen")
        peers.write_elbo(folder / "fault.json", peers.swapped(merges))
        check(peers.compare(peers.elbo_ids(folder / "fault.json", lines), b)[1], "two merges swapped are not seen")


def linear_time(folder):
    learn = [peers.adversary(kind, 2048).decode("utf-8", "replace").encode().rstrip(b"\n")
             for kind in peers.ADVERSARIES] * 2
    tokenizer = peers.train_elbo(folder, learn, 400)
    for kind in ("one letter", "spaces", "combining marks", "not UTF-8"):
        small, large, ratio = peers.growth(lambda n, kind=kind: peers.seconds(tokenizer, peers.adversary(kind, n)),
                                           10**5, 10**6, 5)
        # Ten times the text takes milliseconds: twice the limit leaves room for a busy machine, and n^2 is far above
        # it.
        check(ratio <= 2 * peers.MOST_RATIO, f"{kind}: {small:.4f} s for 10^5 bytes, {large:.4f} s for 10^6")
    check(peers.growth(peers.quadratic, 150, 1500, 1)[2] > 2 * peers.MOST_RATIO, "a quadratic encoder is not seen")


def main():
    there = peers.need_tokenizers()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "growth").mkdir()
        linear_time(folder / "growth")
        if there:
            same_ids(folder)
    if not there:
        print("the package `tokenizers` is not there: bench/peers/tokenizers --setup")
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
