"""Ciphers undo themselves, say what they do in words that belong to them alone, and step through it as Python does."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.data.descriptions import canonical, describe, find, parse, says
from pbb_helpers.data.documents import EVERY_MODE, call_document, chain_of_thought, description_document, source_document
from pbb_helpers.families import cipher_words
from pbb_helpers.families.cipher_parts import ALPHABET, Cipher, affine, atbash, caesar, keyed, vigenere
from pbb_helpers.families.cipher_steps import letter_by_letter
from pbb_helpers.families.ciphers import KEYWORDS, PARTS, Ciphers
from pbb_helpers.programs import Program, UsageError, behaviour, family, from_cell, to_cell
from pbb_helpers.training.evaluate import Generation, score

WIDE = Ciphers(max_statements=4)
texts = st.text(ALPHABET, min_size=1, max_size=12)
shifts = st.integers(0, 25)
ciphers = st.integers(0, 2**40).map(lambda seed: WIDE.cipher(np.random.default_rng(seed)))
both = st.tuples(ciphers, st.booleans()).map(lambda drawn: drawn[0].inverse() if drawn[1] else drawn[0])


@settings(max_examples=150, deadline=None)
@given(cipher=both, text=texts, shift=shifts)
def test_decoding_undoes_encoding(cipher, text, shift):
    secret = cipher.encode(text, shift)
    assert len(secret) == len(text) and set(secret) <= set(ALPHABET)
    assert cipher.decode(secret, shift) == text and cipher.encode(cipher.decode(text, shift), shift) == text
    assert cipher.inverse().inverse() == cipher and cipher.inverse().length == cipher.length


@pytest.mark.parametrize(
    ("cipher", "text", "shift", "secret"),
    [
        (caesar(), "HELLO", 3, "KHOOR"),
        (caesar(), "XYZ", 3, "ABC"),
        (caesar(), "HELLO", 0, "HELLO"),
        (caesar(), "URYYB", 13, "HELLO"),
        (atbash(), "HELLO", 9, "SVOOL"),
        (vigenere("LEMON"), "ATTACKATDAWN", 0, "LXFOPVEFRNHR"),
        (vigenere("LEMON"), "ATTACK", 1, "MYGPQW"),
        (affine(5), "AFFINECIPHER", 8, "IHHWVCSWFRCP"),
        (Cipher(("n = n + k",), schedule="k = k + 1"), "AAAA", 0, "ABCD"),  # Trithemius
        (Cipher(("n = n + k",), schedule="k = -k"), "MMMM", 2, "OKOK"),
        (Cipher(("n = n + k",), before="T[::-1]"), "ABC", 1, "DCB"),
        (Cipher(("n = n + k",), alphabet="ZEBRACDFGHIJKLMNOPQSTUVWXY"), "ZEBY", 1, "EBRZ"),
    ],
)
def test_known_ciphers(cipher, text, shift, secret):
    assert cipher.encode(text, shift) == secret and cipher.decode(secret, shift) == text


def test_parts_that_change_letters_or_their_order():
    circle = "if c in w:\n    c = w[(w.find(c) + k) % len(w)]"
    assert Cipher((circle,), circle="AEIOU").encode("BEAUTY", 1) == "BIEATY"
    blocks = "''.join((T[j:j + 3][::-1] for j in range(0, len(T), 3)))"
    assert Cipher(("n = n + k",), before=blocks).encode("ABCDEFGH", 0) == "CBAFEDHG"
    assert Cipher(("n = n + k",), before="T[2:] + T[:2]").encode("ABCDE", 0) == "CDEAB"
    assert Cipher((keyed([1, 2]), "n = n + i * 3")).encode("AAAA", 5) == "BFHL"


@settings(max_examples=100, deadline=None)
@given(cipher=both, phrasing=st.integers(0, 50), name=st.sampled_from(["zibble", "quorn"]))
def test_a_cipher_in_words_is_that_cipher_alone(cipher, phrasing, name):
    program = cipher.program(name)
    words = describe(program, phrasing)
    assert parse(words) == canonical(program.source) and says(words, program.source)
    assert "\n" not in words and len(re.findall(rf"\b{name}\b", words)) == 1
    assert find(f"Listen. {words} That is all.") == [canonical(program.source)]
    assert describe(cipher.program("florp"), phrasing).replace("florp", name) == words


def test_every_phrase_belongs_to_one_line():
    phrases = [phrase for line in cipher_words.LINES for phrase in line.phrases]
    assert len(set(phrases)) == len(phrases) and not any("." in phrase for phrase in phrases)
    filled = {"n": "3", "numbers": "3, 1", "letters": "ZEBRA", "count": "2"}
    for line in cipher_words.LINES:
        for phrase in line.phrases:
            fits = [
                other for other in cipher_words.LINES for p in other.phrases if cipher_words._pattern(p).fullmatch(phrase.format(**filled))
            ]
            assert fits == [line], phrase


def test_every_line_occurs():
    drawn = [WIDE.sketch("zibble", np.random.default_rng(seed)) for seed in range(400)]
    sources = "\n".join(program.source for program in drawn)
    for line in cipher_words.LINES:
        pattern = cipher_words._pattern(line.python.split("\n")[-1].strip())
        assert any(pattern.fullmatch(text.strip()) for text in sources.split("\n")), line


@pytest.mark.parametrize(
    "text",
    [
        "zibble takes a text and a shift.",
        "zibble takes a text and a shift. Return what was written.",
        "zibble takes a text and a shift. Go through the letters in turn. Return what was written.",
        "zibble takes a text and a shift. Add the shift. Go through the letters in turn. Write the letter. Return what was written.",
        "zibble takes a text and a shift. Go through the letters in turn. Write the letter. Reverse the text. Return what was written.",
        "zibble takes a text and a shift. Go through the letters in turn. Whistle. Return what was written.",
        "zibble takes a text and a shift. Go through the letters in turn. Write the letter. Return what was written. And more.",
    ],
)
def test_words_that_say_no_cipher_are_none(text):
    with pytest.raises(UsageError, match="is no description"):
        parse(text)


def test_a_line_without_words_is_named():
    with pytest.raises(UsageError, match=r"the line 's = s \* 2' is none of a cipher's"):
        describe(Program("zibble", "ciphers", "def zibble(t, k):\n    s = ''\n    for c in t:\n        s = s * 2\n    return s", 1))


# ---------------------------------------------------------------- chain of thought


@pytest.mark.parametrize(
    ("cipher", "text", "shift", "lines"),
    [
        (caesar(), "XYZ", 3, "X: 23 + 3 = 26, A\nY: 24 + 3 = 27, B\nZ: 25 + 3 = 28, C\nreturn ABC"),
        (caesar().inverse(), "AA", 3, "A: 0 - 3 = -3, X\nA: 0 - 3 = -3, X\nreturn XX"),
        (atbash(), "AB", 3, "A: 25 - 0 = 25, Z\nB: 25 - 1 = 24, Y\nreturn ZY"),
        (affine(5), "BC", 2, "B: 1 * 5 % 26 = 5, 5 + 2 = 7, H\nC: 2 * 5 % 26 = 10, 10 + 2 = 12, M\nreturn HM"),
        (Cipher(("n = n + k",), schedule="k = -k"), "MM", 2, "M: 12 + 2 = 14, O, k = -2\nM: 12 + -2 = 10, K, k = 2\nreturn OK"),
        (Cipher(("n = n - k",), schedule="k = k + 4"), "BB", 1, "B: 1 - 1 = 0, A, k = 1 + 4 = 5\nB: 1 - 5 = -4, W, k = 5 + 4 = 9\nreturn AW"),
        (Cipher((keyed([3, 1]),)), "AAA", 9, "A: 0 + 3 = 3, D\nA: 0 + 1 = 1, B\nA: 0 + 3 = 3, D\nreturn DBD"),
        (Cipher(("n = n + i * 3",), before="T[::-1]"), "AB", 9, "t = BA\nB: 1 + 0 * 3 = 1, B\nA: 0 + 1 * 3 = 3, D\nreturn BD"),
        (Cipher(("if c in w:\n    c = w[(w.find(c) + k) % len(w)]", "n = n + k"), circle="AEIOU"), "BE", 4,
         "B: no, 1 + 4 = 5, F\nE: yes, (1 + 4) % 5 = 0, 0 + 4 = 4, E\nreturn FE"),
        (caesar(), "", 3, "return "),
    ],
)  # fmt: skip
def test_chain_of_thought(cipher, text, shift, lines):
    assert chain_of_thought(cipher.program("zibble"), (text, shift)) == lines


@settings(max_examples=150, deadline=None)
@given(cipher=both, text=texts, shift=shifts)
def test_every_line_of_a_chain_of_thought_is_right(cipher, text, shift):
    """Checks each line against Python and the alphabet, not against the trace that it was made from."""
    program = cipher.program("zibble")
    *lines, last = chain_of_thought(program, (text, shift)).split("\n")
    assert last == f"return {program.run((text, shift))}"
    if lines[0].startswith("t = "):
        assert lines[0] == f"t = {eval(cipher.before, {'T': text})}"
        text = lines.pop(0)[4:]
    written = ""
    for letter, line in zip(text, lines, strict=True):
        start, *pieces = line.split(" ", 1)[0], *line.split(" ", 1)[1].split(", ")
        assert start == f"{letter}:"
        changed = [piece for piece in pieces if piece.startswith("k = ")]
        *sums, out = [piece for piece in pieces if piece not in changed]
        number = None
        for piece in sums:
            if piece not in ("yes", "no"):
                left, number = piece.rsplit(" = ", 1)
                assert eval(left) == int(number), line
        if cipher.letters[-1].startswith("n = "):
            assert out == cipher.alphabet[int(number) % 26], line
        elif sums[-1] == "no":
            assert out not in cipher.circle, line
        else:
            assert out == cipher.circle[int(number)], line
        for piece in changed:
            left, value = piece.removeprefix("k = ").rsplit(" = ", 1) if " = " in piece[4:] else (piece[4:], piece[4:])
            assert eval(left) == int(value), line
        written += out
    assert (eval(cipher.after, {"T": written}) if cipher.after else written) == last.removeprefix("return ")


@settings(max_examples=60, deadline=None)
@given(cipher=both, text=texts, shift=shifts)
def test_what_a_line_leaves_the_next_goes_on_with(cipher, text, shift):
    """The shift that a line ends with is the one that the next begins with."""
    lines = chain_of_thought(cipher.program("zibble"), (text, shift)).split("\n")
    for one, other in pairwise(line for line in lines if "k = " in line):
        if cipher.schedule != "k = -k":
            assert other.split("k = ")[1].split(" ")[0] == one.rsplit(" = ", 1)[1]


def test_a_step_without_a_rendering_is_named():
    program = Program("zibble", "ciphers", "def zibble(t, k):\n    u = t\n    return u", 1)
    with pytest.raises(UsageError, match="no step-by-step rendering for the line 'u = t' of a cipher"):
        letter_by_letter(program.trace(("AB", 1)))


# ---------------------------------------------------------------- the family


@pytest.mark.parametrize("settings_", [{}, {"texts": "letters", "max_letters": 6, "n_texts": 12}, {"max_statements": 3, "lowest_shift": 0}])
def test_what_is_drawn_differs_in_behaviour_and_in_words(settings_):
    distribution = Ciphers(**settings_)
    inputs = distribution.inputs()
    names = [f"name{i}" for i in range(60)]
    programs = distribution.draw(names, np.random.default_rng(1))
    assert [program.name for program in programs] == names
    assert len({behaviour(program, inputs) for program in programs}) == 60
    assert len({describe(program).replace(program.name, "") for program in programs}) == 60
    for program in programs:
        assert distribution.min_statements <= program.length <= distribution.max_statements
        assert sum(program.run(x) == x[0] for x in inputs) <= 0.2 * len(inputs)
    again = distribution.draw(names, np.random.default_rng(1))
    assert again == programs != distribution.draw(names, np.random.default_rng(2))


def test_excluded_behaviours_are_not_drawn_again():
    one = Ciphers(max_statements=1, n_texts=10)
    taken = {behaviour(program, one.inputs()) for program in one.draw([f"n{i}" for i in range(20)], np.random.default_rng(0))}
    again = one.draw([f"n{i}" for i in range(20)], np.random.default_rng(0), exclude=taken)
    assert taken.isdisjoint(behaviour(program, one.inputs()) for program in again)


def test_every_part_of_a_drawn_cipher_acts():
    """Without any one of its parts a cipher is another."""
    inputs = Ciphers(min_letters=4, max_letters=5).inputs()[::7]
    for seed in range(60):
        cipher = WIDE.cipher(np.random.default_rng(seed))
        whole = behaviour(cipher.program("f"), inputs)
        fewer = [Cipher(cipher.letters[:i] + cipher.letters[i + 1 :], cipher.schedule, cipher.before, "", cipher.alphabet, cipher.circle)
                 for i in range(len(cipher.letters))]  # fmt: skip
        fewer += [Cipher(cipher.letters, "", cipher.before, "", cipher.alphabet, cipher.circle)] if cipher.schedule else []
        fewer += [Cipher(cipher.letters, cipher.schedule, "", "", cipher.alphabet, cipher.circle)] if cipher.before else []
        fewer += (
            [Cipher(cipher.letters, cipher.schedule, cipher.before, "", ALPHABET, cipher.circle)] if cipher.alphabet != ALPHABET else []
        )
        assert all(behaviour(other.program("f"), inputs) != whole for other in fewer), cipher


def test_only_the_allowed_parts_occur():
    sources = [Ciphers(parts=("shift", "key")).sketch("f", np.random.default_rng(seed)).source for seed in range(60)]
    assert not any(word in source for source in sources for word in ("a =", "w =", "t =", "[::-1]", " 25 - ", "k = "))
    assert any("n + k" in s for s in sources) and any("n - k" in s for s in sources) and any("][i %" in s for s in sources)


def test_texts_are_words_or_letters_of_the_lengths_asked_for():
    words = {text for text, _ in Ciphers().inputs()}
    assert len(words) == 40 and {len(word) for word in words} == {3, 4} and words > {text for text, _ in Ciphers(n_texts=20).inputs()}
    assert {text for text, _ in Ciphers(n_texts=20, texts="letters").inputs()} < {text for text, _ in Ciphers(texts="letters").inputs()}
    letters = {text for text, _ in Ciphers(texts="letters", min_letters=7, max_letters=7, n_texts=100).inputs()}
    assert len(letters) == 100 and {len(text) for text in letters} == {7} and letters.isdisjoint(words)
    assert Ciphers().inputs() == sorted(Ciphers().inputs()) and len(Ciphers().inputs()) == 40 * 25
    for keyword in KEYWORDS:
        assert len(set(keyword)) == len(keyword) and set(keyword) <= set(ALPHABET)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_statements": 0}, "give 1 <= min_statements <= max_statements"),
        ({"min_statements": 3, "max_statements": 2}, "give 1 <= min_statements <= max_statements"),
        ({"parts": ("shft",)}, "unknown part of a cipher 'shft'; did you mean 'shift'"),
        ({"parts": ("schedule", "order")}, "one that changes letters"),
        ({"parts": (), "max_statements": 1}, "allow more"),
        ({"max_statements": len(PARTS) + 1}, "different parts"),
        ({"texts": "word"}, "unknown texts 'word'; did you mean 'words'"),
        ({"min_letters": 2}, "give 3 <= min_letters <= max_letters"),
        ({"min_letters": 5, "max_letters": 4}, "give 3 <= min_letters <= max_letters"),
        ({"min_letters": 9, "max_letters": 9}, "there are 0"),
        ({"n_texts": 0}, "0 texts of 3 to 4 letters"),
        ({"n_texts": 5000}, "5000 texts of 3 to 4 letters; there are"),
        ({"highest_shift": 26}, "shift 26 lies outside the alphabet"),
        ({"lowest_shift": -1}, "shift -1 lies outside the alphabet"),
        ({"lowest_shift": 1.0}, "shift 1.0 lies outside the alphabet"),
        ({"texts": "letters", "max_letters": 10**9}, "max_letters <= 1000"),
        ({"lowest_shift": 5, "highest_shift": 5}, "give lowest_shift < highest_shift"),
    ],
)
def test_impossible_settings_are_one_clear_line(setting, message):
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        family("ciphers", **setting)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shift", "message"),
    [
        ("CAFÉ", 3, "text 'CAFÉ' has 'É'; ciphers are defined for the capitals A to Z"),
        ("Cab 2", 3, "has ' ', '2', 'a', 'b'"),
        ("CAB", 26, "shift 26 lies outside the alphabet; give a whole number from 0 to 25"),
        ("CAB", -1, "shift -1 lies outside"),
        ("CAB", 1.5, "shift 1.5 lies outside"),
        ("CAB", 3.0, "shift 3.0 lies outside"),
        ("CAB", True, "shift True lies outside"),
        (None, 3, "text None is none; give capitals A to Z"),
        (5, 3, "text 5 is none"),
    ],
)
def test_a_text_or_a_shift_that_is_not_defined_is_one_clear_line(text, shift, message):
    for way in (caesar().encode, caesar().decode):
        with pytest.raises(UsageError, match=re.escape(message)):
            way(text, shift)


@pytest.mark.parametrize("make", [lambda: vigenere("A"), lambda: vigenere("lemon"), lambda: affine(13), lambda: affine(2)])
def test_keys_that_make_no_cipher_are_refused(make):
    with pytest.raises(UsageError):
        make()


# ---------------------------------------------------------------- documents and scores


@settings(max_examples=60, deadline=None)
@given(
    cipher=both,
    text=texts,
    shift=shifts,
    mode=st.sampled_from([mode for mode in EVERY_MODE if mode not in ("source", "description")]),
    template=st.integers(0, 19),
)
def test_a_question_is_scored_right_when_answered_with_the_gold(cipher, text, shift, mode, template):
    program = cipher.program("zibble")
    example = call_document(program, "with_io", mode, (text, shift), template)
    assert f"zibble('{text}', {shift})" in example.prompt
    assert example.answer == program.run((text, shift)) and example.input == (text, shift)
    row = score(example, Generation(example.completion, True))
    assert (
        row["correct"]
        and row["answer"] == example.answer
        and from_cell(row["input"]) == (text, shift)
        and row["input"] == to_cell(example.input)
    )
    wrong = score(example, Generation(example.completion[:-1] + ("B" if example.completion[-1] == "A" else "A"), True))
    assert not wrong["correct"] and wrong["parsed_ok"]
    assert score(example, Generation(example.completion.lower(), True))["answer"] is None


def test_prompts_for_ciphers_speak_of_texts():
    program = caesar().program("zibble")
    for template in range(20):
        for example in (
            source_document(program, "with_io", template),
            description_document(program, "with_io", template),
            call_document(program, "with_io", "direct", ("CAB", 3), template),
        ):
            assert "number" not in example.prompt
