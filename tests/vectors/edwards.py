"""Ed25519 in whole numbers, as sections 2.3 and 2.5 say it; for tests only, slow and not secret.

A point is a pair of coordinates, not an encoding. Nothing of the product is used.
"""

import hashlib

Point = tuple[int, int]

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P
    return x, y


def negative(a: Point) -> Point:
    return -a[0] % P, a[1]


def times(factor: int, a: Point) -> Point:
    # Fractions (X/Z, Y/Z) put the only division at the end.
    total, power = (0, 1, 1), (*a, 1)
    while factor:
        if factor & 1:
            total = _add_fractions(total, power)
        power = _add_fractions(power, power)
        factor >>= 1
    inverse = pow(total[2], -1, P)
    return total[0] * inverse % P, total[1] * inverse % P


def _add_fractions(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    z = a[2] * b[2] % P
    xx, yy = a[0] * b[0] % P, a[1] * b[1] % P
    product, square = D * xx * yy % P, z * z % P
    minus, plus = square - product, square + product
    x = z * minus * (a[0] * b[1] + b[0] * a[1]) % P
    y = z * plus * (yy + xx) % P
    return x, y, minus * plus % P


def encode(a: Point) -> bytes:
    """Return the canonical encoding: y, with the lowest bit of x as the sign bit."""
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def abscissa(y: int, sign: int) -> int | None:
    """Return the x of the curve's point at `y` with this sign, None if there is none.

    x = 0 is returned for either sign.
    """
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_ONE % P
    if x * x % P != square:
        return None
    return -x % P if x & 1 != sign else x


def decode(raw: bytes) -> Point | None:
    """Return the point of a canonical encoding, None for any other 32 bytes."""
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number % 2**255
    if y >= P:
        return None
    x = abscissa(y, sign)
    if x is None or (x == 0 and sign):
        return None
    return x, y


def is_key(raw: bytes) -> bool:
    """Return whether 32 bytes are a key: the four conditions of section 2.3."""
    point = decode(raw)
    return point is not None and point != IDENTITY and times(L, point) == IDENTITY


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    """Return k of section 2.5."""
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def is_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether 64 bytes are a signature of a valid key: the three conditions of 2.5."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= L or r == encode(IDENTITY):
        return False
    return equation_holds(public, message, signature)


def equation_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the encoding of [S]B - [k]A is R, without the conditions on A, R and S."""
    a = decode(public)
    assert a is not None
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    difference = add(times(s, BASE), negative(times(challenge(r, public, message), a)))
    return encode(difference) == r


def cofactored_equation_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether [8][S]B = [8]R + [8][k]A, which section 2.5 forbids to take for a check.

    R is decoded leniently, as such verifiers do: its y may be 2^255 - 19 or more.
    """
    a, r = decode(public), lenient(signature[:32])
    assert a is not None
    if r is None:
        return False
    k = challenge(signature[:32], public, message)
    left = times(8 * int.from_bytes(signature[32:], "little"), BASE)
    return left == times(8, add(r, times(k, a)))


def lenient(raw: bytes) -> Point | None:
    """Return the point that a careless decoder makes of 32 bytes."""
    number = int.from_bytes(raw, "little")
    y = number % 2**255 % P
    x = abscissa(y, number >> 255)
    return None if x is None else (x, y)


def sign(scalar: int, public: bytes, message: bytes, r: bytes, nonce: int) -> bytes:
    """Return R and S = nonce + k * scalar; R is whatever the caller says it is."""
    s = (nonce + challenge(r, public, message) * scalar) % L
    return r + s.to_bytes(32, "little")


def _base() -> Point:
    y = 4 * pow(5, -1, P) % P
    x = abscissa(y, 0)
    assert x is not None
    return x, y


BASE = _base()


def small_points() -> list[Point]:
    """Return the eight points of order 1, 2, 4 and 8: multiples of one of order 8."""
    y = 2
    while True:
        x = abscissa(y, 0)
        if x is not None:
            generator = times(L, (x, y))
            if times(4, generator) != IDENTITY:
                return [times(n, generator) for n in range(8)]
        y += 1
