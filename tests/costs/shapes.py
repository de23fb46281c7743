"""Pieces that documents are made of."""


def filled(size, before, piece, after):
    """As many pieces as there is room for; `#` in a longer piece is its number."""
    if len(piece) == 1 or "#" not in piece:
        return before + piece * ((size - len(before) - len(after)) // len(piece)) + after
    length, pieces = len(before) + len(after), []
    while length < size:
        pieces.append(piece.replace("#", str(len(pieces))))
        length += len(pieces[-1])
    return before + "".join(pieces[:-1]) + after


def each(count, piece):
    """So many pieces; `#` is the number of each."""
    return "".join(piece.replace("#", str(number)) for number in range(count))


def chain(levels, body):
    """Fragments, each of which spreads the next one wherever `body` says NEXT."""
    links = each_link(levels, body)
    return f"{{ ...f0 }} {links} fragment f{levels} on Query {{ __typename }}"


def each_link(levels, body):
    """The fragments of a chain but for the last."""
    return " ".join(
        f"fragment f{level} on Query {{ {body.replace('NEXT', f'...f{level + 1}')} }}" for level in range(levels)
    )
