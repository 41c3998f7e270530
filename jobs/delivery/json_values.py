"""Where a JSON value ends that begins at a given byte: the question that splitting a delivery file comes down to.

`splitting` asks; a record's content is no concern here, only its extent. A text of n bytes costs a multiple of n
whatever stands in it, for no byte is looked at more than a few times:

- An object within a value that breaks off is looked at once. Those still open where it broke break off there too,
  those that were closed end where they ended: both are remembered.
- What was a string to one value may hold the beginning of another, whose strings are then what lay between the
  first one's. There is no third way to read a byte: a quote opens or closes.
"""

from __future__ import annotations

import re

import msgspec

BROKEN = -1  # no JSON value: it breaks off, or the text is over
OPEN = -2  # the text ends within the value: more of it may tell

_TOKEN = re.compile(
    rb"[ \t\r\n]*+(?:([{}\[\],:])"
    rb'|("[^"\\]*+(?:\\.[^"\\]*+)*+")'
    # NaN and Infinity are no JSON, but many producers write them: the record is to be rejected whole.
    rb"|-?(?:[0-9][0-9.eE+-]*+|Infinity)|NaN|true|false|null)",
    re.DOTALL,
)
_BLANK = re.compile(rb"[ \t\r\n]*+")
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]"), ord('"'): ord('"')}
_BLANKS = b" \t\r\n"
# msgspec stops behind the first value and says where; another wording only takes the slow way.
_BEHIND = re.compile(r"trailing characters \(byte (\d+)\)$")
_skip = msgspec.json.Decoder(msgspec.Raw).decode

# What may come next within a value.
_VALUE, _ITEM_OR_END, _KEY_OR_END, _KEY, _COLON, _COMMA_OR_END = range(6)


class Values:
    """The values of one text. `is_all`: nothing follows it. `longest`: a value of more bytes than this is none."""

    def __init__(self, text: bytes, is_all: bool, longest: int) -> None:
        self._text = text
        self._view = memoryview(text)
        self._is_all = is_all
        self._longest = longest
        self._known: dict[int, int] = {}
        self._looked_at = 0

    def end(self, start: int) -> int:
        """Where the object, array or string at `start` ends (the byte after it); BROKEN or OPEN where it does not."""
        end = self._known.get(start)
        if end is None and start >= self._looked_at:
            end = self._quick_end(start)
            end = end if end >= 0 else None
        if end is None:
            end = self._known[start] = self._scan(start)
        too_long = self._is_all or len(self._text) - start > self._longest
        return BROKEN if end == OPEN and too_long else end

    def _quick_end(self, start: int) -> int:
        """`end` by msgspec; BROKEN where it cannot tell, as for a value that it finds faulty."""
        try:
            _skip(self._view[start:])
        except msgspec.DecodeError as error:
            behind = _BEHIND.search(str(error))
            if behind is None:
                return BROKEN
            end = start + int(behind[1]) - 1
        except RecursionError:
            return BROKEN
        else:
            end = len(self._text)
        while self._text[end - 1] in _BLANKS:
            end -= 1
        return end if self._text[end - 1] == _CLOSING[self._text[start]] else BROKEN

    def _scan(self, start: int) -> int:
        """`end`, token by token. What is inside a string, and what a number is made of, is not looked at closely."""
        text, known = self._text, self._known
        containers: list[int] = []  # where those begin that are open
        closed: list[tuple[int, int]] = []  # objects that are over, the outermost alone
        expected, at = _VALUE, start
        while True:
            token = _TOKEN.match(text, at)
            if token is None:
                end = self._without_token(at)
                break
            at = token.end()
            mark = text[token.start(1)] if token[1] else 0
            if expected in (_ITEM_OR_END, _KEY_OR_END, _COMMA_OR_END) and mark and mark in b"]}":
                begun = containers.pop()
                if mark != _CLOSING[text[begun]] or (expected == _ITEM_OR_END) > (mark == ord("]")):
                    containers.append(begun)
                    end = BROKEN
                    break
                if mark == ord("}"):
                    while closed and closed[-1][0] > begun:
                        closed.pop()
                    closed.append((begun, at))
                expected = _COMMA_OR_END
            elif expected in (_VALUE, _ITEM_OR_END) and (not mark or mark in b"{["):
                if mark:
                    begun = at - 1
                    found = known.get(begun)
                    if found is None:
                        containers.append(begun)
                        expected = _KEY_OR_END if mark == ord("{") else _ITEM_OR_END
                        continue
                    if found < 0:
                        end = found
                        break
                    at, expected = found, _COMMA_OR_END
                    closed.append((begun, found))
                else:
                    expected = _COMMA_OR_END
            elif expected in (_KEY_OR_END, _KEY) and token[2]:
                expected = _COLON
                continue
            elif expected == _COLON and mark == ord(":"):
                expected = _VALUE
                continue
            elif expected == _COMMA_OR_END and mark == ord(","):
                expected = _KEY if text[containers[-1]] == ord("{") else _VALUE
                continue
            else:
                end = BROKEN
                break
            if not containers:
                self._looked_at = max(self._looked_at, at)
                return at
        self._looked_at = max(self._looked_at, at)
        known.update(dict.fromkeys(containers, end))
        known.update(closed)
        return end

    def _without_token(self, at: int) -> int:
        """What it means that no token begins at `at`."""
        blank = _BLANK.match(self._text, at)
        begins = blank.end() if blank else at
        left = len(self._text) - begins
        # The end of the text, a string without its end, or the first letters of a word.
        return OPEN if left < len("-Infinity") or self._text[begins] == ord('"') else BROKEN
