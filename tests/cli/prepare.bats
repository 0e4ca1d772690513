#!/usr/bin/env bats
# The command line on text and corpora: its output, and for bad input the message and the documented exit code.

load common

setup() {
    cd "$BATS_TEST_TMPDIR" || return
    printf 'the cat sat\nthe dog sat\n\na cat and a dog\n' > text.txt
}

@test "text becomes a corpus, and info says what it holds" {
    "$ELBO" prepare text.txt --out=corpus --tokenizer.kind=word --tokenizer.size=100 > said
    grep -q '^corpus: 3 sentences, 11 tokens' said
    "$ELBO" info corpus --json > info.json
    grep -q '"vocabulary": 9' info.json
    grep -q '"words": 11' info.json
    grep -q '"lengths"' info.json
    "$ELBO" info corpus > info.txt
    grep -qE '^ +50 % +3 +1 +2 \(18.2 %\)$' info.txt
    grep -qE '^ +100 % +5 +0 +0 \(0.0 %\)$' info.txt
    [ -z "$(find corpus -name '*.tmp')" ]
}

@test "the same text gives the same bytes" {
    "$ELBO" prepare text.txt --out=one
    cat text.txt | "$ELBO" prepare - --out=two
    cmp one/corpus.bin two/corpus.bin
    cmp one/tokenizer.json two/tokenizer.json
    cmp one/manifest.json two/manifest.json
}

@test "tokenize and back, through pipes" {
    "$ELBO" prepare text.txt --out=byte --tokenizer.kind=byte
    "$ELBO" prepare text.txt --out=bpe --tokenizer.kind=bpe --tokenizer.size=300
    for kind in byte bpe; do
        printf 'a new line, caf\303\251\n\n  x\n' > lines
        "$ELBO" tokenize $kind < lines | "$ELBO" tokenize $kind --decode > back
        cmp lines back
    done
    "$ELBO" prepare text.txt --out=word
    [ "$(echo 'the zebra sat' | "$ELBO" tokenize word --json)" = "[7, 2, 6]" ] ||
        { echo 'the zebra sat' | "$ELBO" tokenize word --json; false; }
    refused 3 'token id 99' 'vocabulary of' -- bash -c 'echo 3 99 | "$ELBO" tokenize word --decode'
    refused 3 "line 1: 'x' is not a token id" -- bash -c 'echo x | "$ELBO" tokenize word --decode'
}

@test "a corpus is replaced, and an interrupted one is no corpus" {
    "$ELBO" prepare text.txt --out=corpus
    echo other words > other.txt
    "$ELBO" prepare other.txt --out=corpus
    "$ELBO" info corpus | grep -q 'sentences *1$'
    rm corpus/manifest.json
    refused 4 'not a finished corpus' -- "$ELBO" info corpus
}

@test "what is not of a corpus is kept, and a part by itself is refused" {
    mkdir mine && echo words > mine/notes.txt
    refused 2 'mine/notes.txt' 'choose another --out' -- "$ELBO" prepare text.txt --out=mine
    [ "$(ls -A mine)" = notes.txt ]
    refused 4 'text.txt is a file' -- "$ELBO" prepare text.txt --out=text.txt
    refused 2 'the current folder' -- "$ELBO" prepare text.txt --out=.
    refused 2 'did not expand' '$HOME' -- "$ELBO" prepare text.txt '--out=~/corpus'
    for i in 1 2 3 4 5 6 7 8; do echo "sat the cat a $i"; echo "dog $i a cat"; done > more.txt
    "$ELBO" prepare more.txt --out=split --split=60/20/20 --tokenizer.kind=byte
    refused 2 'is a part of the split' -- "$ELBO" prepare text.txt --out=split/train
    "$ELBO" info split | grep -q 'part of'
    [ "$("$ELBO" dump split | sort | cmp - <(sort more.txt) && echo same)" = same ]
    echo 'a cat' | "$ELBO" tokenize split
    refused 4 'name one of its parts' -- "$ELBO" train --data.train=split --run.dir=run
    "$ELBO" prepare text.txt --out=split/
    [ "$(ls -A split)" = "$(printf 'corpus.bin\nmanifest.json\ntokenizer.json')" ]
    [ -z "$(find . -name '.*elbo*')" ]
}

@test "other things in the place of a corpus are said to be what they are" {
    refused 2 'text.txt is a file, not a corpus' 'elbo prepare text.txt --out=corpus' -- "$ELBO" dump text.txt
    refused 2 'data.train: text.txt is a file, not a corpus' -- "$ELBO" train --data.train=text.txt --run.dir=run
    "$ELBO" prepare text.txt --out=corpus
    refused 3 'give its folder, corpus/' -- "$ELBO" train --data.train=corpus/corpus.bin --run.dir=run
}

@test "options that would have no effect are refused" {
    "$ELBO" prepare text.txt --out=corpus
    refused 2 '--tokenizer.size has no effect' -- \
        "$ELBO" prepare text.txt --out=c --tokenizer.kind=byte --tokenizer.size=300
    refused 2 '--tokenizer.size has no effect' -- \
        "$ELBO" prepare text.txt --out=c --tokenizer.from=corpus --tokenizer.size=300
    refused 2 '--tokenizer.kind has no effect' -- \
        "$ELBO" prepare text.txt --out=c --tokenizer.from=corpus --tokenizer.kind=word
    [ ! -e c ]
}

@test "unknown words and text without blanks are warned of" {
    "$ELBO" prepare text.txt --out=few --tokenizer.size=5 2> message
    grep -q 'of the tokens are unknown' message
    grep -q -- '--tokenizer.kind=bpe' message
    "$ELBO" prepare text.txt --out=all 2> message
    lacks message unknown
    for i in 1 2 3; do echo "$i吾輩は猫である名前はまだ無いどこで生れたか"; done > blanks.txt
    "$ELBO" prepare blanks.txt --out=none 2> message
    grep -q 'not cut into words by blanks; use --tokenizer.kind=bpe' message
    "$ELBO" prepare blanks.txt --out=pairs --tokenizer.kind=bpe --tokenizer.size=300 2> message
    [ ! -s message ]
}

@test "what is no text is refused with the command that reads it" {
    iconv -f UTF-8 -t UTF-16LE text.txt > wide.txt
    refused 3 'wide.txt is UTF-16LE text' 'iconv -f UTF-16LE -t UTF-8 wide.txt' -- \
        "$ELBO" prepare wide.txt --out=c --strict
    gzip -c text.txt > text.txt.gz
    refused 3 'zcat text.txt.gz | elbo prepare - ...' -- "$ELBO" prepare text.txt.gz --out=c
    refused 3 'standard input is compressed by gzip' -- bash -c '"$ELBO" prepare - --out=c < text.txt.gz'
    refused 3 'text.txt.gz' -- "$ELBO" prepare text.txt <(cat text.txt) text.txt.gz --out=c
    tr '\n' '\r' < text.txt > mac.txt
    refused 3 "tr '\\r' '\\n' < mac.txt" -- "$ELBO" prepare mac.txt --out=c
    printf '{"text": "a cat"}\n{"text": "a dog"}\n' > text.jsonl
    refused 3 'jq -r .text text.jsonl' -- "$ELBO" prepare text.jsonl --out=c
    [ ! -e c ]
    zcat text.txt.gz | "$ELBO" prepare - --out=c
    iconv -f UTF-16LE -t UTF-8 wide.txt | "$ELBO" prepare - --out=d
    cmp c/corpus.bin d/corpus.bin
}

@test "a byte order mark is no letter, at the beginning of a file or within" {
    (printf '\xef\xbb\xbf'; cat text.txt; printf '\xef\xbb\xbf'; cat text.txt) > marked.txt
    cat text.txt text.txt > plain.txt
    for kind in word byte bpe; do
        size=(--tokenizer.size=300)
        if [ $kind = byte ]; then size=(); fi
        "$ELBO" prepare marked.txt --out=marked --tokenizer.kind=$kind "${size[@]}"
        "$ELBO" prepare plain.txt --out=plain --tokenizer.kind=$kind "${size[@]}"
        cmp marked/corpus.bin plain/corpus.bin
        "$ELBO" tokenize plain < marked.txt | cmp - <("$ELBO" tokenize plain < plain.txt)
    done
}

@test "any byte of a sentence comes back" {
    printf 'ab\0cd\n\001\002x\n\0\nlast\0' > bytes.txt
    for kind in byte bpe; do
        size=(--tokenizer.size=300)
        if [ $kind = byte ]; then size=(); fi
        "$ELBO" prepare bytes.txt --out=c --tokenizer.kind=$kind "${size[@]}"
        "$ELBO" dump c > back
        cmp back <(cat bytes.txt; echo)
    done
    "$ELBO" prepare bytes.txt --out=c --tokenizer.kind=word
    "$ELBO" dump c | cmp - <(cat bytes.txt; echo)
}

@test "files follow the umask" {
    (umask 027; "$ELBO" prepare text.txt --out=new/corpus)
    [ "$(stat -c %a new new/corpus new/corpus/*  | sort -u | tr '\n' ' ')" = '640 750 ' ]
}

@test "missing, empty and unreadable text" {
    refused 4 'missing.txt' 'No such file' -- "$ELBO" prepare missing.txt --out=corpus
    : > empty.txt
    refused 3 'empty.txt is empty' -- "$ELBO" prepare empty.txt --out=corpus
    refused 3 'standard input is empty' -- "$ELBO" prepare - --out=corpus < /dev/null
    printf '\n \n' > blank.txt
    refused 3 'holds no sentences' -- "$ELBO" prepare blank.txt --out=corpus
    refused 4 'a folder' -- "$ELBO" prepare . --out=corpus
    refused 2 '--out is missing' -- "$ELBO" prepare text.txt
    refused 2 'needs TEXT' -- "$ELBO" prepare --out=corpus
    refused 4 'cannot create the folder' -- "$ELBO" prepare text.txt --out=text.txt/corpus
    [ ! -e corpus ]
}

@test "invalid UTF-8 is counted and replaced, or refused" {
    printf 'good\nbad \377\376 bytes\n' > latin.txt
    "$ELBO" prepare latin.txt --out=corpus 2> message
    grep -q '2 ill-formed parts of UTF-8 in 1 lines' message
    refused 3 'latin.txt:2:5' '0xff' '--strict' -- "$ELBO" prepare latin.txt --out=corpus2 --strict
}

@test "unknown options and commands get a suggestion" {
    refused 2 'did you mean tokenizer.size?' -- "$ELBO" prepare text.txt --out=c --tokenizer.sise=9
    refused 2 'did you mean prepare?' -- "$ELBO" prepair text.txt
    refused 2 'this command does not take --train.steps' -- "$ELBO" prepare text.txt --out=c --train.steps=9
    refused 2 'did you mean --out=c' -- "$ELBO" prepare text.txt -o c
    refused 2 'does not take' -- "$ELBO" info a b
    [ ! -e c ]
}

@test "values of the wrong type or out of range" {
    refused 2 "tokenizer.size = 'many' is not a whole number" 'from 4 to' -- \
        "$ELBO" prepare text.txt --out=c --tokenizer.size=many
    refused 2 'out of range' 'from 4 to' -- "$ELBO" prepare text.txt --out=c --tokenizer.size=0
    refused 2 'takes 259 to' -- "$ELBO" prepare text.txt --out=c --tokenizer.kind=bpe --tokenizer.size=100
    refused 2 'did you mean word?' 'byte | word | bpe' -- "$ELBO" prepare text.txt --out=c --tokenizer.kind=wrod
    refused 2 'true or false' -- "$ELBO" prepare text.txt --out=c --strict=maybe
    refused 2 'has no value' -- "$ELBO" prepare text.txt --out
    refused 2 '95/2.5/2.5' -- "$ELBO" prepare text.txt --out=c --split=90/20/5
    refused 3 'leaves no sentence' -- "$ELBO" prepare text.txt --out=c --split=98/1/1
    [ ! -e c ]
}

@test "a damaged, foreign or other-version corpus" {
    "$ELBO" prepare text.txt --out=good
    cp -r good cut && truncate -s -8 cut/corpus.bin
    refused 3 'cut/corpus.bin' 'damaged' 'prepare the corpus again' -- "$ELBO" info cut
    cp -r good foreign && cp text.txt foreign/corpus.bin
    refused 3 'foreign/corpus.bin' 'is truncated' -- "$ELBO" info foreign
    cp -r good text && head -c 5000 /dev/zero > text/corpus.bin
    refused 3 'text/corpus.bin is not a corpus' -- "$ELBO" info text
    cp -r good newer && printf '\002' | dd of=newer/corpus.bin bs=1 seek=8 conv=notrunc status=none
    refused 3 'version 2' 'this program reads version 1' -- "$ELBO" info newer
    cp -r good flipped && printf '\007' | dd of=flipped/corpus.bin bs=1 seek=194 conv=notrunc status=none
    refused 3 'its hash is' -- "$ELBO" info flipped
    refused 4 'is not there' -- "$ELBO" info nothing
    "$ELBO" info good
}

@test "help, version, reference, completion and the default configuration" {
    "$ELBO" --version | grep -q '^elbo [0-9]'
    "$ELBO" --help | grep -q 'exit codes'
    "$ELBO" prepare --help | grep -q -- '--tokenizer.size=8000'
    "$ELBO" help --reference | grep -q '^| `tokenizer.size` | `8000` |'
    "$ELBO" init > printed
    "$ELBO" init written.yaml
    cmp printed written.yaml
    refused 4 'exists already' -- "$ELBO" init written.yaml
    "$ELBO" completion bash > completion
    # shellcheck disable=SC1091
    source completion
    COMP_WORDS=(elbo prepare --tokenizer.ki) COMP_CWORD=2
    _elbo || true
    [[ " ${COMPREPLY[*]} " == *" --tokenizer.kind="* ]]
    refused 2 'no command given' -- bash -c '"$ELBO" > /dev/null'
}

@test "a full disk or a closed pipe is an error, not a success" {
    [ -e /dev/full ] || skip
    local got=0
    "$ELBO" help --reference > /dev/full 2> message || got=$?
    [ "$got" -eq 4 ]
    grep -q 'standard output' message
}
