"""The errors of `lamella.layers`: what happened, to what, and what to do next, in one sentence."""

from __future__ import annotations


class LamellaError(Exception):
    """The root of every error that Lamella raises on purpose."""

    code: str = ""
    """Code in documents of failures; empty if the error of the system below decides. docs/reference/json.md lists them."""

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message)
        if code:
            self.code = code


class LayersError(LamellaError):
    """The root of the errors of `lamella.layers`."""


class InvalidReference(LayersError):
    """A reference that no registry and no layout folder could have."""

    code = "invalid"


class InvalidContent(LayersError):
    """Bytes that are not what their descriptor, or the specification, says they are."""

    code = "damaged"


class InvalidArgument(InvalidContent):
    """A caller's own value, such as a media type or an annotation, that no content could have."""

    code = "invalid"


class FalseMirror(InvalidContent):
    """Bytes of a mirror that are not what they should be. The storage asks that mirror no more: fetch once again."""


class NotFound(LayersError):
    """A tag, manifest or blob that is certainly absent (never: one that could not be asked for)."""

    code = "not-found"


class Unreachable(LayersError):
    """A registry that could not be asked: down, timed out, or answering 5xx for as long as was tried."""

    code = "unreachable"


class Denied(LayersError):
    """A registry that refuses these credentials, or wants some."""

    code = "unauthorized"


class UnsafeLayer(LayersError):
    """A layer whose unpacking would leave its folder, or hold what no environment needs."""

    code = "damaged"


class StoreError(LayersError):
    """A store or layout that can't be read or written: full, read-only, not ours."""


class NoSpace(StoreError):
    """A store whose disk has too little space for an environment."""

    code = "no-space"

    def __init__(self, message: str, lacking: int = 0) -> None:
        super().__init__(message)
        self.lacking = lacking
        """Bytes that are missing; 0 if unknown."""


class Busy(StoreError):
    """A store or layout that another process keeps locked."""

    code = "busy"


class MountError(LayersError):
    """No way to assemble the environment at the place that was asked for."""


class ExportError(LayersError):
    """A copy of an environment that can't be written where, or as what, it was asked for."""


class Unsupported(LayersError):
    """Something that this machine can't do, such as mounting on a system other than Linux."""

    code = "unsupported"


class CannotRun(LayersError):
    """A command that is not there, or that can't be executed."""

    def __init__(self, message: str, exit_code: int = 127) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        """What a shell would give: 127 for not found, 126 for not executable."""


class PolicyError(LayersError):
    """Something that this machine's administrator does not allow, or a policy that can't be read."""

    code = "not-allowed"


class CredentialsError(LayersError):
    """A credentials file or helper that can't be used as it is."""

    code = "unauthorized"


class SignatureError(LayersError):
    """Content that was not signed by the key that it had to be, or a key that can't be used."""

    code = "invalid"


class NotSigned(SignatureError):
    """Content that was not signed by the key that it had to be."""

    code = "not-signed"
