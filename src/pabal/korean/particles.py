"""Particles that depend on the sound before them, which is only known once a message is filled in."""

from __future__ import annotations

import re

_PARTICLES = {
    "은(는)": ("은", "는"),
    "이(가)": ("이", "가"),
    "을(를)": ("을", "를"),
    "(으)로": ("으로", "로"),
}
"""As written in the catalogue: the forms after a consonant and after a vowel."""
_FORM = re.compile(r"([가-힣0-9])([^\w\s(]*)(은\(는\)|이\(가\)|을\(를\)|\(으\)로)")
_CLOSED_DIGITS = "013678"
_RIEUL = 8
"""The number of the final consonant ㄹ in a syllable's code; (으)로 treats it like a vowel."""


def with_particles(text: str) -> str:
    """Choose the particles of a sentence wherever the sound is known: after Korean and digits.

    >>> with_particles("'정수'을(를) 8(으)로, 위치 3이(가), order(으)로")
    "'정수'를 8로, 위치 3이, order(으)로"
    """
    return _FORM.sub(_decided, text)


def _decided(found: re.Match[str]) -> str:
    last, quotes, written = found.groups()
    closed, is_rieul = last in _CLOSED_DIGITS, last in "178"
    if last >= "가":
        final = (ord(last) - ord("가")) % 28
        closed, is_rieul = final > 0, final == _RIEUL
    behind_consonant, behind_vowel = _PARTICLES[written]
    if written == "(으)로" and is_rieul:
        closed = False
    return f"{last}{quotes}{behind_consonant if closed else behind_vowel}"
