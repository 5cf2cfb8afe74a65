"""Sets of conditions on one value, asked all at once: the answer is an integer with a bit for each that holds.

The parts of which ``sidecar.core.rbac_index`` is made. Conditions are added first, then the set is compiled.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.config.address import CidrRange
from sidecar.config.matcher import Int64Range, ListMatcher, OrMatcher, StringMatcher, ValueMatcher
from sidecar.core.address import Address
from sidecar.core.matching import compile_value_of_header
from sidecar.core.metadata_match import compile_value, find_metadata

_KNOWN_ADDRESSES = 1024

TextSet = Callable[[bytes], int]


class TextAtoms:
    """Conditions on a string: exact ones in a dictionary, prefixes and suffixes in sorted lists, the others one by one.

    ``first`` is the bit that the first condition gets.
    """

    def __init__(self, first: int = 1) -> None:
        self._next = first
        self._bits: dict[StringMatcher | Int64Range, int] = {}

    def atom(self, matcher: StringMatcher | Int64Range) -> int:
        """The bit of a condition."""
        bit = self._bits.get(matcher)
        if bit is None:
            bit = self._bits[matcher] = self._next
            self._next <<= 1
        return bit

    def compile(self) -> TextSet:
        """From a string to the bits of the conditions that it meets."""
        plain: dict[str, dict[bytes, int]] = {}
        folded: dict[str, dict[bytes, int]] = {}
        others: list[tuple[Callable[[bytes], bool], int]] = []
        for matcher, bit in self._bits.items():
            if isinstance(matcher, StringMatcher) and matcher.match_pattern in ("exact", "prefix", "suffix"):
                by_pattern, value = (folded, matcher.value.lower()) if matcher.ignore_case else (plain, matcher.value)
                values = by_pattern.setdefault(matcher.match_pattern, {})
                values[value] = values.get(value, 0) | bit
            else:
                others.append((compile_value_of_header(matcher), bit))
        parts = _parts(plain)
        if folded:
            in_lower_case = _union(_parts(folded))
            parts.append(lambda text: in_lower_case(text.lower()))
        if others:
            parts.append(_one_by_one(tuple(others)))
        return _union(parts)


def _parts(by_pattern: Mapping[str, Mapping[bytes, int]]) -> list[TextSet]:
    parts: list[TextSet] = []
    if "exact" in by_pattern:
        get = dict(by_pattern["exact"]).get
        parts.append(lambda text: get(text, 0))
    if "prefix" in by_pattern:
        parts.append(_prefixes(by_pattern["prefix"]))
    if "suffix" in by_pattern:
        backwards = _prefixes({value[::-1]: bit for value, bit in by_pattern["suffix"].items()})
        parts.append(lambda text: backwards(text[::-1]))
    return parts


def _union(parts: list[TextSet]) -> TextSet:
    if not parts:
        return lambda text: 0
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda text: first(text) | second(text)
    frozen = tuple(parts)

    def of(text: bytes) -> int:
        atoms = 0
        for part in frozen:
            atoms |= part(text)
        return atoms

    return of


def _one_by_one(tests: tuple[tuple[Callable[[bytes], bool], int], ...]) -> TextSet:
    def of(text: bytes) -> int:
        atoms = 0
        for test, bit in tests:
            if test(text):
                atoms |= bit
        return atoms

    return of


def _prefixes(bits: Mapping[bytes, int]) -> TextSet:
    """All the prefixes of a text. In sorted order the longest one stands at or before the text's own place, and if what
    stands there is none, the longest is a prefix of that: each knows the next shorter prefix of itself.
    """
    ordered = sorted(bits)
    longer: list[tuple[bytes, int, int]] = []  # the prefix, its bits and those of its own prefixes, where the next is
    for position, prefix in enumerate(ordered):
        parent = position - 1
        while parent >= 0 and not prefix.startswith(longer[parent][0]):
            parent = longer[parent][2]
        longer.append((prefix, bits[prefix] | (longer[parent][1] if parent >= 0 else 0), parent))
    frozen = tuple(longer)

    def of(text: bytes) -> int:
        position = bisect_right(ordered, text) - 1
        while position >= 0:
            prefix, atoms, position = frozen[position]
            if text.startswith(prefix):
                return atoms
        return 0

    return of


class AddressAtoms:
    """Ranges of addresses, by the lengths of their prefixes."""

    def __init__(self) -> None:
        self._bits: dict[CidrRange, int] = {}

    def atom(self, network: CidrRange) -> int:
        """The bit of a range."""
        return self._bits.setdefault(network, 1 << len(self._bits))

    def compile(self) -> Callable[[Address], int]:
        """From an address to the bits of the ranges that it lies in; the answers for the latest are kept."""
        by_mask: dict[tuple[int, int], dict[int, int]] = {}
        for network, bit in self._bits.items():
            networks = by_mask.setdefault((network.version, int(network.netmask)), {})
            start = int(network.network_address)
            networks[start] = networks.get(start, 0) | bit
        masks = tuple((version, mask, networks) for (version, mask), networks in by_mask.items())
        known: dict[str | None, int] = {}

        def of(address: Address) -> int:
            atoms = known.get(address.ip)
            if atoms is None:
                atoms, parsed = 0, address.parsed
                if parsed is not None:
                    family, number = parsed.version, int(parsed)
                    for version, mask, networks in masks:
                        if version == family:
                            atoms |= networks.get(number & mask, 0)
                if len(known) >= _KNOWN_ADDRESSES:
                    known.clear()
                known[address.ip] = atoms
            return atoms

        return of


class MetadataAtoms:
    """Conditions on the value under some keys of metadata: strings, and lists that hold a string, are looked up."""

    def __init__(self, keys: tuple[str, ...], first: int = 1) -> None:
        self.keys = keys
        self._next = first
        self._bits: dict[ValueMatcher, int] = {}

    def atom(self, matcher: ValueMatcher) -> int:
        """The bit of a condition."""
        bit = self._bits.get(matcher)
        if bit is None:
            bit = self._bits[matcher] = self._next
            self._next <<= 1
        return bit

    def compile(self) -> Callable[[Mapping[str, Mapping[str, Any]] | None], int]:
        """From metadata to the bits of the conditions that hold."""
        keys = self.keys
        strings: dict[str, int] = {}
        elements: dict[str, int] = {}
        others: list[tuple[Callable[[Any], bool], int]] = []
        for matcher, bit in self._bits.items():
            for one in matcher.value_matchers if isinstance(matcher, OrMatcher) else (matcher,):
                if (exact := _exact(one)) is not None:
                    strings[exact] = strings.get(exact, 0) | bit
                elif isinstance(one, ListMatcher) and (exact := _exact(one.one_of)) is not None:
                    elements[exact] = elements.get(exact, 0) | bit
                else:
                    others.append((compile_value(one), bit))
        frozen = tuple(others)

        def of(metadata: Mapping[str, Mapping[str, Any]] | None) -> int:
            value, atoms = find_metadata(metadata, keys), 0
            if isinstance(value, str):
                atoms = strings.get(value, 0)
            elif isinstance(value, list) and elements:
                for element in value:
                    if isinstance(element, str):
                        atoms |= elements.get(element, 0)
            for test, bit in frozen:
                if test(value):
                    atoms |= bit
            return atoms

        return of


def _exact(matcher: ValueMatcher) -> str | None:
    """The one string that a condition lets pass, if it is such a condition."""
    if not isinstance(matcher, StringMatcher) or matcher.match_pattern != "exact" or matcher.ignore_case:
        return None
    return matcher.value.decode()
