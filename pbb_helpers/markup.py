"""HTML that is safe to share: text escaped, tags from an allow list, formulas as MathML, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

# Characters that draw nothing or reorder what is around them: a model may write them, a reader must see them.
_RANGES = (
    (0x00, 0x08),
    (0x0B, 0x1F),
    (0x7F, 0x9F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0xD800, 0xDFFF),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0xFE00, 0xFE0F),
    (0xFFF0, 0xFFFB),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_INVISIBLE = {0x00AD, 0x034F, 0x061C, 0x3164, 0xFEFF, 0xFFA0, *(code for first, last in _RANGES for code in range(first, last + 1))}
_VISIBLE = {c: f"\\x{c:02x}" if c < 0x100 else f"\\u{c:04x}" if c < 0x10000 else f"\\U{c:08x}" for c in _INVISIBLE}

TAGS = frozenset(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i img kbd li mark"
    " ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr tt u ul var".split()
)
ATTRIBUTES = frozenset("alt class colspan dir height id lang open rowspan scope start style title width".split())
_SIDES = ("bottom", "left", "right", "top")
STYLES = (
    "background background-color border border-radius color display float font-family font-size font-style font-weight height line-height"
    " margin max-height max-width min-width overflow overflow-x overflow-y padding text-align text-decoration vertical-align white-space"
    " width"
).split() + [f"{what}-{side}" for what in ("border", "margin", "padding") for side in _SIDES]
_FUNCTIONS = re.compile(r"\b(?:rgba?|hsla?|calc)\(", re.I)  # the only functions of CSS that a style may hold: the others can load
_ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|\w+);?")
LONGEST = 4_000  # characters of one text in a table; what a model wrote can be a megabyte
LONGEST_OUTPUT = 20_000  # characters of one output of a cell
LOADING = {"src", "srcset", "poster", "data", "background", "action", "formaction", "xlink:href", "manifest"}


def visible(text: object) -> str:
    """Returns the text with control, bidirectional and zero-width characters spelled out (newline and tab stay).

    >>> visible("a\\u202eb\\x1b[31m")
    'a\\\\u202eb\\\\x1b[31m'
    """
    return str(text).translate(_VISIBLE)


def shortened(text: object, longest: int = LONGEST) -> str:
    """Returns the text, or its beginning and its end (where the answer stands) around a note of how much was left out.

    >>> shortened("0123456789" * 3, 9)
    '012345 … [21 of 30 characters left out] … 789'
    """
    text = str(text)
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail]} … [{len(text) - longest:,} of {len(text):,} characters left out] … {text[-tail:]}"


def safe(text: object) -> str:
    """Returns the text fit for HTML, in an element or in a quoted attribute."""
    return html.escape(visible(text), quote=True)


def table_html(table: Any, *, rows: int = 50) -> str:
    """Returns a DataFrame as an HTML table: cells escaped, numbers to three digits, a missing value as a dash.

    Args:
        table: A pandas DataFrame.
        rows: At most so many rows; a line under the table says how many there are.
    """
    head = table.head(rows)
    indexed = head.index.name is not None or (head.index.dtype == object or str(head.index.dtype).startswith("str"))
    names = ([head.index.name or ""] if indexed else []) + list(head.columns)
    cells = [
        ([key] if indexed else []) + list(values) for key, values in zip(head.index, head.itertuples(index=False, name=None), strict=True)
    ]
    numeric = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(names))]
    header = "".join(
        f'<th class="{"num" if right else "txt"}">{safe(_cell(name))}</th>' if name != "" else "<td></td>"
        for name, right in zip(names, numeric, strict=True)
    )
    body = "".join("<tr>" + "".join(_td(value) for value in row) + "</tr>" for row in cells)
    more = f'<p class="pbb-caption">{rows} of {len(table):,} rows</p>' if len(table) > rows else ""
    return f'<table class="pbb-table"><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{more}'


def _td(value: Any) -> str:
    text = shortened(_cell(value))
    inner = f"<pre>{safe(text)}</pre>" if "\n" in text else safe(text)
    return f'<td class="{"num" if _is_number(value) else "txt"}">{inner}</td>'


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) or hasattr(value, "dtype")


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value) or str(value) in ("nan", "NaT", "<NA>"):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    if isinstance(value, tuple):
        return ", ".join(map(_cell, value))
    return str(value)


def sanitise(text: str) -> str:
    """Returns HTML with only harmless tags and attributes; a tag that is not allowed stays readable as text."""
    import bleach
    from bleach.css_sanitizer import CSSSanitizer

    text = re.sub(r"<style\b.*?</style\s*>", "", text, flags=re.S | re.I)  # pandas writes one above every table
    text = text.translate({code: shown for code, shown in _VISIBLE.items() if code != 0x0D})
    text = _ENTITY.sub(_visible_entity, text)
    css = CSSSanitizer(allowed_css_properties=STYLES)
    return bleach.clean(text, tags=TAGS, attributes=_attribute, css_sanitizer=css, protocols={"http", "https", "mailto", "data"})


def _visible_entity(match: re.Match[str]) -> str:
    """Returns an entity such as &rlm; or &#x202e; as visible text, any other as it is."""
    text = html.unescape(match[0])
    return safe(text) if any(ord(character) in _INVISIBLE for character in text) else match[0]


def _attribute(tag: str, name: str, value: str) -> bool:
    if tag == "img" and name == "src":
        return value.startswith("data:image/")
    if tag == "a" and name == "href":
        return value.startswith(("http://", "https://", "mailto:", "#"))
    if name == "style":  # url(), image-set() and the like load, also when written with escapes
        return not re.search(r"[\\(@]", _FUNCTIONS.sub("", html.unescape(value)))
    return name in ATTRIBUTES or name.startswith("aria-")


def external_loads(text: str) -> list[str]:
    """Returns what a page would fetch from elsewhere when opened; a link that has to be clicked is none.

    >>> external_loads('<img src="https://x.org/a.png"><a href="https://x.org">x</a>')
    ['https://x.org/a.png']
    """
    finder = _Loads()
    finder.feed(text)
    finder.close()
    return finder.found


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            loads = name in LOADING or (name == "href" and tag in ("link", "base", "image", "use"))
            if loads and value and not value.strip().lower().startswith(("data:", "#")):
                self.found.append(value)
            if name == "style" and value:
                self._style(value)

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Reads <![…> as browsers do, as a comment; the library raises AssertionError for what it does not know."""
        return self.parse_bogus_comment(i, bool(report))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._style(data)

    def _style(self, css: str) -> None:
        for target in re.findall(r"""(?:url\(\s*|@import\s+|image-set\(\s*)["']?([^"')\s;]+)""", css, re.I):
            if not target.lower().startswith(("data:", "#", "url(")):
                self.found.append(target)


def images_without_alt(text: str) -> int:
    """Returns how many images of a page say nothing to those who don't see them.

    >>> images_without_alt("<img src='data:,'> <img src='data:,' alt='a bar'> &lt;img&gt;")
    1
    """
    reader = _Images()
    reader.feed(text)
    return reader.silent


class _Images(HTMLParser):
    silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag == "img" and not (dict(attrs).get("alt") or "").strip()

    parse_marked_section = HTMLParser.parse_bogus_comment


def mathml(source: str, *, block: bool) -> str:
    r"""Returns a LaTeX formula as MathML, which browsers draw without a script; as readable text where it can't be converted.

    >>> mathml("x^2", block=False)[:5]
    '<math'
    """
    # latex2mathml passes links through, and a formula may come from generated text.
    if not re.search(r"\\(href|url|class|style|cssId|html)", source):
        try:
            from latex2mathml.converter import convert

            result = convert(visible(source), display="block" if block else "inline")
            if not re.search(r"<(?!/?m[a-z]+[\s>/])|\bhref|\bon\w+\s*=", result):
                return result
        except Exception:  # noqa: BLE001 - the library raises many kinds for a malformed formula
            pass
    return f'<code class="math">{safe(source)}</code>'
