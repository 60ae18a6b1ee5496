"""What people, editors, other programs and attackers put where a value is expected."""


class Raw(str):
    """A text that stands in a document as it is, without quotes."""

    __slots__ = ()


TEXTS = [
    "",
    " ",
    "\0",
    "a\nb",
    "\x1b[2J\x1b[31m",
    "\ud800",
    "\U0001f600 \u202e",
    "é" * 300,
    "a" * 100_000,
    "../../nowhere/passwd",
    "/dev/zero",
    "~nobody/there",
    "$(touch spoilt)`touch spoilt`",
    "-rf",
    "--help",
    "%s%n%d",
    "{x}{0}{0.__class__}",
    "<script>alert(1)</script>",
    ":",
    ",",
    "=",
    "a:b",
    "a:b:c",
    "no_such_module:thing",
    "no_such_module:",
    ":thing",
    "schedule:/nowhere.csv",
    "replay:/nowhere.json",
    "text:/nowhere",
    "table:/nowhere.csv,target=",
    "hf:/nowhere",
    "mlp,width=0",
    "mlp,width=-1",
    "mlp,width=99999999999999999999",
    "mlp,width=1e999",
    "mlp,width=,width=2",
    "synthetic,samples=99999999999999",
    "synthetic,size=99999999999",
    "fbp",
    "fbp,lead=99999999999",
    "pipedream",
    "sequential",
    "muon",
    "replay",
    "stash",
    "1e999",
    "-1",
    "0",
    "1" * 5000,
    "1_000",
    "0x10",
    "1/0",
    "nan",
    "inf",
    "-inf",
    "1,2",
    "1,1,0",
    "1e-5:1e9",
    "1e999:1e999",
    "0:0",
    "1:",
    "99999999999999999999h",
    "1e99",
    "1e-99s",
    "1:30",
    "1:30:00",
    "9999999999999999999-0:0:0",
    "4GiB",
    "4G",
    "1e30TiB",
    "10%",
    "200%",
    "200steps",
    "99999999999999epochs",
    "measured",
    "layer*",
    "**",
    "[",
    "(" * 200,
    "type:",
    "true",
    "null",
    "cuda:99",
    "\u0663",
    "\uff11\uff12",
]
"""Texts that are none of what they stand for, or only just."""

NUMBERS = [
    *(0, 1, -1, 2, 3, 7, 64, 1000, 10**6, 10**9, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1),
    *(2**63, 2**64, 10**30, 10**400, -(2**63), -(10**400), 0.5, 1.5, 1e-9, 5e-324, 1e-300, 1e18),
    *(1e100, 1e300, 1.7e308, -0.0, -1e308, 0.1 + 0.2),
]

RAW = [
    *map(Raw, ("null", "true", "false", "[]", "{}", "[[]]", "[null]", '{"": null}', '"text"')),
    *map(Raw, ("1e999", "-1e999", "NaN", "Infinity", "-Infinity", "-0", "0.0", "1" * 5000)),
    *map(Raw, ("[1, 2, 3]", '["a", 1, null]', '{"a": {"b": {"c": [{}]}}}', '[["a", "b"]]')),
    *map(Raw, ('"\\ud800"', '"\\u0000"', '"\\udc00\\ud800"', '"\\uffff"', '"\t"', "'text'")),
    Raw("[" * 100_000),
    Raw("[" * 90 + "]" * 90),
    Raw("[" * 100_000 + "]" * 100_000),
    Raw('{"a":' * 5000 + "1" + "}" * 5000),
    Raw("[" + "0, " * 20_000 + "0]"),
    *map(Raw, ("", "}", "]", ",", "nul", "tru", "01", "+1", ".5", "1.", "0x10", "1_000")),
]
"""Values as JSON writes them, and what is no JSON."""

_ALIASES = "[&a0 [x], " + ", ".join(f"&a{n + 1} [{f'*a{n}, ' * 9}]" for n in range(9)) + "]"

RAW_YAML = [
    *map(Raw, ("*nowhere", "&a [*a]", "&a {b: *a}", "!!python/object/apply:os.system [exit]")),
    *map(Raw, ("!!python/name:os.system", "!unknown x", "!!binary aGVsbG8=", "!!set {a, b}")),
    *map(Raw, (".inf", "-.INF", ".nan", "1:30:00", "010", "0o17", "2024-01-15", "yes", "~", "1e3")),
    *map(Raw, ("{<<: {a: 1}}", "{<<: [1]}", "{<<: x}", "{[a]: b}", "{{a: b}: c}", "{null: 1}")),
    *map(Raw, ("{1: 2}", "{true: 1}", "? x", "- a", "a: b", "%YAML 1.2", "---", "...", "@a", "`")),
    *map(Raw, ("!!int x", "!!float y", "!!bool z", "!!str [a]", "!!map [a]", "!!seq x")),
    Raw(_ALIASES),
]
"""Further values that YAML has, and a list that holds a billion texts."""

KEYS = [
    *("", "cls", "self", "own", "name", "__class__", "__init__", "model_config", "model_fields"),
    *("schema_version", "options", "chunks", "a\nb", "\ud800", "a" * 10_000, "0", "1.5", "null"),
    *("strategy", "strategies", "lead", "seed", "lr", "stages", "cuts", "steps", "epochs", "tune"),
]

BYTES = [
    *(b"\0", b"\xff", b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8),
    *(b"\0" * 64, b"\n", b"\r\n", b"\r", b'"', b",", b"{", b"[", b"}", b"\t", b"\\", b"\\ud800"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\x1f\x8b\x08", b"PK\x03\x04"),
    *(b"\x1b[2J", b"1e999", b"NaN", b"-1", b"99999999999999999999", b"null", b"{}", b"[]"),
    *(b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\x93NUMPY", b"cos\nsystem\n(S'exit'\ntR.", b"A" * 3000),
    *(b"[" * 3000, b"&a [*a]", b"2147483648", b"\x01", b"(", b"=" * 5),
]
