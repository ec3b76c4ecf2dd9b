"""Each environment that a tag moves to, pulled and leased, before anything of it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import LayersError, NotFound, Unreachable
from lamella.layers.progress.display import Silent
from lamella.layers.published import preflight
from lamella.layers.pulling import pull

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from lamella.layers.following.tag import TaggedDigest
    from lamella.layers.oci.documents import Digest
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.pulling.pull import Pulled
    from lamella.layers.settings.trust import Trust
    from lamella.layers.store.store import Store


@dataclass(frozen=True, slots=True)
class FollowEvent:
    """One event of following a tag."""

    kind: Literal["following", "replaced", "restarted", "signalled", "failed", "note"]
    message: str
    """One sentence without the time."""
    reference: str = ""
    """Reference with its digest, which is in use now."""
    moved: int = 0
    """Bytes downloaded for it."""
    seconds: float = 0.0
    """From the answer with the new digest to its use."""


class Moves:
    """The moves of one tag. A digest that can't be used is reported once, and the former one stays in use.

    Trust, signature and policy are checked for each digest, as by a pull.
    """

    def __init__(self, tag: TaggedDigest, store: Store, trust: Trust, notify: Callable[[FollowEvent], object]) -> None:
        self._tag, self._store, self._trust, self._notify = tag, store, trust, notify
        self.used: Digest | None = None
        """Digest in use."""
        self._refused: Digest | None = None
        self._failure = ""
        self._noted: set[str] = set()

    def next(self) -> Digest | None:
        """Ask once; return the digest that the tag has moved to, or None."""
        try:
            digest = self._tag.ask()
        except LayersError as error:
            self.failed(f"{error}; retrying")
            return None
        if digest == self.used:
            self._failure = ""
            return None
        return None if digest == self._refused else digest

    def pulled(self, digest: Digest, stack: ExitStack) -> Pulled | None:
        """Pull it, leased until `stack` closes; None if that failed. A failure of the network is tried again."""
        try:
            return stack.enter_context(
                pull.leased(
                    self._tag.at(digest), store=self._store, trust=self._trust, progress=Silent(), check=self.check
                )
            )
        except (Unreachable, NotFound) as error:
            # A registry can lack, for a moment, what a push has just sent to it.
            self.failed(f"{error}; retrying")
        except (LayersError, OSError) as error:
            self.refuse(digest, str(error))
        return None

    def refuse(self, digest: Digest | None, why: str) -> None:
        """Leave that digest alone until the tag moves again."""
        self._refused = digest
        name = self._tag.at(digest) if digest else self._tag.reference
        self.failed(f"{name}: not used: {why}; the former environment stays in use")

    def failed(self, message: str) -> None:
        """Report a failure, once as long as it stays the same."""
        if message != self._failure:
            self._failure = message
            self._notify(FollowEvent("failed", message))

    def check(self, environment: PublishedEnvironment) -> None:
        """Raise `Unsupported` if this machine can't run it; report needs of a part of it that are unmet."""
        preflight.check(environment)
        for sentence in preflight.notes(environment):
            if sentence not in self._noted:
                self._noted.add(sentence)
                self._notify(FollowEvent("note", sentence))
