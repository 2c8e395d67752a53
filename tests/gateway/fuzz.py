"""Requests by chance, the same in every run: values of `kinds` put together and spoilt."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus

from .doors import Ask, ask
from .kinds import BODY, QUERY

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 2026
ALPHABET = '0123456789-+.eE:TZsmh_axRED,=&[]{}"\\ \u00fc'


def queries(count: int) -> Iterator[Ask]:
    """Up to four parameters each, one in two spoilt."""
    chance = random.Random(SEED)
    names = list(QUERY)
    for _ in range(count):
        pairs = []
        chosen = chance.sample(names, chance.randint(1, 4))
        for name in chosen:
            # Of a message and a part of it, chance takes the one that grpc-gateway sets last.
            if any(name.startswith(f"{other}.") for other in chosen):
                continue
            value = unquote_plus(chance.choice(QUERY[name]))
            pairs.append((_spoilt(chance, name, 0.1), _spoilt(chance, value, 0.5)))
        yield ask("GET /v1/echo?" + "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs))


def bodies(count: int) -> Iterator[Ask]:
    """Up to four fields each, one in two spoilt somewhere."""
    chance = random.Random(SEED)
    names = list(BODY)
    for _ in range(count):
        fields = ", ".join(
            f'"{name}": {chance.choice(BODY[name])}' for name in chance.sample(names, chance.randint(1, 4))
        )
        yield ask("POST /v1/echo/x", _spoilt(chance, f"{{{fields}}}", 0.5))


def _spoilt(chance: random.Random, text: str, share: float) -> str:
    """The text, or with this chance one that has another character somewhere, one more or one less."""
    if chance.random() >= share:
        return text
    place, other = chance.randrange(len(text) + 1), chance.choice(ALPHABET)
    return text[:place] + chance.choice([other, ""]) + text[place + chance.randint(0, 1) :]
