"""Names as people type them: which catalogue entry one means, or an error that says what it could have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roofsim.catalog.files import shown
from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MOST_NAMES_SHOWN = 5
MOST_CHARS_COMPARED = 200


def resolve(
    field: str,
    typed: str,
    aliases: Mapping[str, Iterable[str]],
    fold: Callable[[str], str],
) -> str:
    """Find the one entry that a typed name means.

    Parameters
    ----------
    field
        What the error calls the name, ``accelerator`` or ``model``.
    typed
        The name as typed.
    aliases
        Entry name to the other names it goes by; the entry's own name need not be among them.
    fold
        Maps the spellings that count as equal to one text.

    Returns
    -------
    str
        The entry's name.

    Raises
    ------
    SpecError
        The name means several entries, which are named, or none, and the nearest known names are given.
    """
    wanted = fold(typed)
    entries: dict[str, str] = {}
    found: list[str] = []
    for name, others in aliases.items():
        for spelling in (name, *others):
            entries.setdefault(fold(spelling), name)
        if wanted == fold(name):
            return name
        if wanted in map(fold, others):
            found.append(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError(field, shown(typed), f"names several catalogue entries, choose one: {', '.join(sorted(found))}")
    import difflib  # only an error needs it

    near = difflib.get_close_matches(wanted[:MOST_CHARS_COMPARED], entries, n=4 * MOST_NAMES_SHOWN, cutoff=0.5)
    names = list(dict.fromkeys(entries[spelling] for spelling in near))[:MOST_NAMES_SHOWN]
    hint = f"the nearest known names are {', '.join(names)}" if names else "no known name is near it"
    raise SpecError(field, shown(typed), f"is not in the catalogue; {hint}")
