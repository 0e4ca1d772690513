"""Lines of text in many scripts, with difficult input for tokenizers: combining marks, emoji joined by ZWJ,
contractions, digits of other scripts, every kind of whitespace, controls, and bytes that are not UTF-8. A function of
(seed, bytes) alone. All characters are assigned in Unicode 14, the version of Debian's PCRE2, because an engine with a
later version gives a later character another category."""
import random
import unicodedata

SCRIPTS = {
    "latin": (0x41, 0x24F, 0x1E00, 0x1EFF), "greek": (0x370, 0x3FF, 0x1F00, 0x1FFF), "cyrillic": (0x400, 0x52F),
    "armenian": (0x531, 0x58A), "hebrew": (0x591, 0x5F4), "arabic": (0x600, 0x6FF, 0x750, 0x77F),
    "devanagari": (0x900, 0x97F), "tamil": (0xB82, 0xBFA), "thai": (0xE01, 0xE5B), "georgian": (0x10A0, 0x10FF),
    "hangul": (0xAC00, 0xD7A3, 0x1100, 0x11FF), "kana": (0x3041, 0x30FF), "han": (0x4E00, 0x9FFC),
    "han beyond": (0x20000, 0x2A6DD), "gothic": (0x10330, 0x1034A),
}
NUMBERS = (0x30, 0x39, 0x660, 0x669, 0x966, 0x96F, 0x2160, 0x2188, 0xB2, 0xB3, 0xBC, 0xBE, 0x2460, 0x249B, 0x1D7CE,
           0x1D7FF)
MARKS = (0x300, 0x36F, 0x483, 0x489, 0x1AB0, 0x1ABE, 0x20D0, 0x20F0)
SIGNS = (0x21, 0x2F, 0x3A, 0x40, 0x5B, 0x60, 0x7B, 0x7E, 0xA1, 0xBF, 0x2010, 0x2027, 0x2030, 0x205E, 0x20A0, 0x20C0,
         0x2190, 0x23FF, 0x3001, 0x3003, 0x3008, 0x3011)
ODD = ("\t\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u3000"
       "\ufeff\x00\x01\x7f\xad")
EMOJI = ["\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466", "\U0001F1E9\U0001F1EA",
         "\u2764\ufe0f", "\U0001F44D\U0001F3FD",
         "\U0001F3F4\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F", "\U0001FAE0"]
FREQUENT = ("the of and to in a is that it's we're I'll don't they'd I've I'm he's 'S 'LL 'Tis d'être и не что это на "
            "की है में και το في من של את 的 是 了 日本 です 안녕 하세요 ไทย 2024 3.14 10,000 1st ... -- !? (x) \"y\" "
            "http://a.b/c?d=e&f").split()
BROKEN = [b"\xff", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\x80", b"\xc3",
          b"\xf8\x88\x80\x80\x80"]


def assigned(ranges):
    found = []
    for low, high in zip(ranges[::2], ranges[1::2]):
        found += [chr(code) for code in range(low, high + 1)
                  if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    return found


def letters(ranges):
    return [c for c in assigned(ranges) if unicodedata.category(c)[0] in "LM"]


class Writer:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.alphabets = [letters(ranges) for ranges in SCRIPTS.values()]
        self.numbers, self.marks, self.signs = assigned(NUMBERS), assigned(MARKS), assigned(SIGNS)
        # each script repeats words, so that merges are learned in every script
        self.words = [["".join(self.random.choices(alphabet[:60 + len(alphabet) // 40], k=self.random.randint(1, 9)))
                       for _ in range(400)] for alphabet in self.alphabets]

    def word(self):
        r, kind = self.random, self.random.random()
        script = r.randrange(len(self.alphabets))
        if kind < 0.35:
            return r.choice(FREQUENT)
        if kind < 0.70:
            return self.words[script][int(400 * r.random() ** 2)]
        if kind < 0.80:
            return "".join(r.choices(self.alphabets[script], k=r.randint(1, 8)))
        if kind < 0.85:
            return "".join(r.choices(self.numbers, k=r.randint(1, 6)))
        if kind < 0.90:
            return "".join(r.choices(self.signs, k=r.randint(1, 4)))
        if kind < 0.94:
            return "".join(r.choice(self.alphabets[0]) + "".join(r.choices(self.marks, k=r.randint(0, 4)))
                           for _ in range(5))
        if kind < 0.97:
            return "".join(r.choices(EMOJI, k=r.randint(1, 3)))
        return self.word() + r.choice(self.signs) + self.word()

    def gap(self):
        r, kind = self.random, self.random.random()
        if kind < 0.88:
            return " "
        if kind < 0.93:
            return " " * r.randint(2, 9)
        if kind < 0.98:
            return "".join(r.choices(ODD, k=r.randint(1, 3)))
        return ""

    def line(self):
        r = self.random
        parts = [r.choice(["", "", "", " ", "  ", "\t"])]
        for _ in range(r.randint(0, 30)):
            parts += [self.word(), self.gap()]
        line = "".join(parts).encode()
        if r.random() < 0.03:
            for _ in range(r.randint(1, 4)):
                at = r.randint(0, len(line))
                line = line[:at] + r.choice(BROKEN) + line[at:]
        return line.replace(b"\n", b" ").rstrip(b"\r")


def mixed_lines(size, seed=1):
    """Returns lines as bytes without line ends, of `size` bytes or a little more with line ends."""
    writer, lines = Writer(seed), [b"plain first line"]
    used = len(lines[0]) + 1
    while used < size:
        lines.append(writer.line())
        used += len(lines[-1]) + 1
    return lines
