"""What a speech recogniser makes of a sentence: no capitals, no punctuation, and now and then another word that sounds the same.

The words are English, from a table of common homophones and of compounds that are written apart as well; other languages lose capitals and
punctuation only. A recogniser errs most in short function words and in endings (Goldwater, Jurafsky and Manning, "Which words are hard to
recognize?", Speech Communication 52, 2010), so these get lost too.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence

SAME_SOUND = """
to too two|for four|there their|your you're|its it's|by buy bye|no know|new knew|right write|here hear|where wear|which witch|whole hole
our hour|one won|ate eight|be bee|see sea|son sun|some sum|week weak|wait weight|way weigh|piece peace|pair pear|plane plain|principal principle
read red|road rode|sale sail|sell cell|cent sent scent|sight site cite|steal steel|tale tail|threw through|waste waist|weather whether|wood would
accept except|affect effect|allowed aloud|bare bear|blue blew|board bored|break brake|brought bought|cash cache|cheque check|cheques checks
coarse course|currant current|dear deer|die dye|fair fare|fined find|flour flower|hi high|hire higher|idle idol|in inn|knight night|lead led
lessen lesson|loan lone|made maid|mail male|meat meet|missed mist|morning mourning|not knot|or oar|past passed|patients patience|pour poor
present presents|profit prophet|role roll|route root|seam seem|serial cereal|stationary stationery|than then|tide tied
time thyme|toe tow|vary very|we'll wheel|wore war|rate rates|pin pen|pay pays|fee fees|card cards|account accounts|charge charged|transfer transferred
lock log|light lights|song songs|are our|and an|of off|is his|has as|him them|will we'll|what watt|do due dew
""".replace("\n", "|")
APART = """
cannot can not|into in to|maybe may be|online on line|everyday every day|anyone any one|someone some one|everyone every one|already all ready
always all ways|anyway any way|without with out|within with in|today to day|password pass word|passcode pass code|website web site|payday pay day
login log in|signup sign up|setup set up|topup top up|checkup check up|cashback cash back|overdraft over draft|download down load|upload up load
update up date|weekend week end|afternoon after noon|bedroom bed room|bathroom bath room|upstairs up stairs|downstairs down stairs|laptop lap top
keyboard key board|headphones head phones|birthday birth day|breakfast break fast|something some thing|nothing no thing|anything any thing
playlist play list|soundtrack sound track|outside out side|inside in side|someday some day|worldwide world wide|mastercard master card
""".replace("\n", "|")
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SHORT = frozenset(["a", "an", "the", "to", "of", "in", "on", "at", "is", "and", "i", "my", "it", "do"])  # lost without a trace
ENDING = re.compile(r"(?<=\w{3})(s|ed|ing|d)$")
RATE = 0.1  # of the words, but one at least, are heard as something else
NO_SOUND = re.compile(r"[^\w'&+@/-]|(?<!\w)['-]|['-](?!\w)")  # what is not said

Edit = tuple[int, int, str]  # first word, the one after the last, and what stands there instead


def _sounds() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for group in filter(None, SAME_SOUND.split("|")):
        for word in group.split():
            found[word] += [other for other in group.split() if other != word]
    for group in filter(None, APART.split("|")):
        word, *parts = group.split()
        found[word].append(" ".join(parts))
    return dict(found)


SOUNDS = _sounds()
TOGETHER = {" ".join(group.split()[1:]): group.split()[0] for group in APART.split("|") if group}


def heard(words: Sequence[str], fixed: Sequence[bool], draw: random.Random) -> list[Edit]:
    """What becomes of each word of a sentence, as edits in order. Those that are `fixed` are neither lost nor joined with others."""
    plain = [NO_SOUND.sub("", word).lower() for word in words]
    plain = [NUMBERS[int(word)] if word.isdecimal() and int(word) < len(NUMBERS) else word for word in plain]
    pairs = {i for i in range(len(words) - 1) if " ".join(plain[i : i + 2]) in TOGETHER and not any(fixed[i : i + 2])}
    can = [i for i, word in enumerate(plain) if word in SOUNDS or i in pairs or ENDING.search(word) or (word in SHORT and not fixed[i])]
    errs = set(draw.sample(can, min(len(can), max(1, round(RATE * len(words))))))
    edits: list[Edit] = []
    skip = False
    for i, word in enumerate(plain):
        if skip:
            skip = False
            continue
        if i in errs and i in pairs:
            edits.append((i, i + 2, TOGETHER[f"{word} {plain[i + 1]}"]))
            skip = True
            continue
        new = _misheard(word, fixed[i], draw) if i in errs else word
        if not new and fixed[i]:
            new = words[i]
        if new != words[i]:
            edits.append((i, i + 1, new))
    return edits


def _misheard(word: str, fixed: bool, draw: random.Random) -> str:
    ways = [*SOUNDS.get(word, ())]
    if word in SHORT and not fixed:
        ways.append("")
    if not ways:
        ways.append(ENDING.sub("", word))
    return draw.choice(ways)
