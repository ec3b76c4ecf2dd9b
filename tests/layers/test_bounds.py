"""The table of bounds on untrusted input, in docs/reference/trust.md, has the numbers of the code."""

from __future__ import annotations

from pathlib import Path

from lamella.builder.files import secrets, small_file
from lamella.builder.pushing import team_cache
from lamella.layers.agent import service
from lamella.layers.attaching import file_names, listing
from lamella.layers.oci import documents, parsing, referrers, values
from lamella.layers.published import environment, tree
from lamella.layers.registry import auth, client, pages, retry
from lamella.layers.settings import folders, policy
from lamella.layers.signing import sigstore
from lamella.layers.tar import decompress, reader

PAGE = Path(__file__).parent.parent.parent / "docs/reference/trust.md"


def count(number: float) -> str:
    return f"{number:,.0f}"


def size(number: int) -> str:
    """Bytes in the largest binary unit that divides them."""
    for power, unit in ((20, "MiB"), (10, "KiB")):
        if number % (1 << power) == 0:
            return f"{number >> power} {unit}"
    return f"{number} bytes"


BOUNDS = {
    "bytes of a manifest, an index, a config, a signed document": size(documents.MAX_DOCUMENT),
    "an integer": f"{values.MAX_INT:,}",
    "levels of lists and objects in a part that is kept as it is": count(parsing._MAX_DEPTH),
    "levels of indexes below a reference": count(tree._MAX_DEPTH),
    "documents below a reference": count(tree._MAX_DOCUMENTS),
    "environments of an index": count(environment.MAX_ENVIRONMENTS),
    "layers of all its environments": count(environment.MAX_LAYERS),
    "drivers that an environment needs": count(environment._MAX_DRIVERS),
    "characters of an image prefix; its folders": f"{count(values._MAX_PREFIX)}; {count(values._MAX_PARTS)}",
    "entries of a layer": count(reader.MAX_ENTRIES),
    "folders above a file of a layer": count(reader.MAX_DEPTH),
    "bytes of a path in a layer": count(reader.MAX_PATH),
    "bytes of an entry's extended header": size(reader._MAX_PAX),
    "bytes after the end of a layer's tar": size(reader._MAX_END),
    "bytes of a layer's tar": f"{decompress._EXPANSION} times its blob's, or twice those announced, plus "
    f"{size(decompress._FREE_EXPANSION)}",
    "window of a zstd stream": size(decompress.MAX_WINDOW),
    "pages of a list; bytes of them all": f"{count(pages.MAX_PAGES)}; {size(pages.MAX_BYTES)}",
    "bytes of a token server's answer": size(auth._MAX_ANSWER),
    "redirects of a request": count(client._REDIRECTS),
    "seconds to wait that a registry asks for": count(retry.LONGEST_WAIT),
    "signatures of a digest that are read, of each form": count(sigstore.MOST),
    "attachments of one type that are read": count(referrers.MOST),
    "artifacts that are listed": count(listing.MOST),
    "bytes of an attached file's name; its folders and it": f"{file_names._MAX_PART}; {file_names._MAX_PARTS}",
    "tags of a repository that a push reads to find layers": count(team_cache.MOST_TAGS),
    "bytes of a request to an agent; seconds; connections at once": f"{size(service.MAX_REQUEST)}; "
    f"{count(service.MAX_SECONDS)}; {count(service.MAX_CONNECTIONS)}",
    "bytes of the user's configuration; of the machine's": f"{size(folders._MAX_BYTES)}; {size(policy._MAX_BYTES)}",
    "bytes of a file of an environment that is read whole": size(small_file._MOST),
    "bytes of a file that are searched for credentials": size(secrets._MOST),
}


def test_every_bound_in_the_table_is_the_code_s() -> None:
    section = PAGE.read_text().partition("## Bounds\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert dict(rows[1:]) == BOUNDS
