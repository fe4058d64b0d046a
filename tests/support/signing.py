"""Keys and signatures as ssh-keygen makes them."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Key:
    """An SSH key of a test's own."""

    def __init__(self, path: Path, kind: str = "ed25519") -> None:
        self.path = path
        _ssh_keygen("-q", "-t", kind, "-N", "", "-C", path.name, "-f", path)
        self.public = path.with_name(f"{path.name}.pub").read_text().strip()

    def line(self, principal: str = "", options: str = "") -> str:
        """A line of a signers file; the principal is the key's own name by default."""
        return " ".join(filter(None, (principal or self.path.name, options, self.public))) + "\n"

    def sign(self, content: bytes, namespace: str = "swapd") -> bytes:
        """The signature of the content."""
        return _ssh_keygen("-Y", "sign", "-n", namespace, "-f", self.path, given=content)

    def sign_file(self, path: Path, namespace: str = "swapd") -> Path:
        """As ``ssh-keygen -Y sign`` beside the file, in the place of an older signature."""
        signature = path.with_name(f"{path.name}.sig")
        signature.unlink(missing_ok=True)
        _ssh_keygen("-Y", "sign", "-n", namespace, "-f", self.path, path)
        return signature

    def certified(self, authority: Key, principals: str, validity: str = "-1d:+1d") -> Key:
        """The same key, with a certificate of the authority's, which its signatures then have in them."""
        certified = object.__new__(Key)
        certified.path = self.path.with_name(f"{self.path.name}-by-{authority.path.name}")
        certified.path.write_bytes(self.path.read_bytes())
        certified.path.chmod(0o600)
        public = certified.path.with_name(f"{certified.path.name}.pub")
        public.write_text(self.public)
        _ssh_keygen("-q", "-s", authority.path, "-I", "of " + self.path.name, "-n", principals, "-V", validity, public)
        certified.path = certified.path.with_name(f"{certified.path.name}-cert.pub")
        certified.public = certified.path.read_text().strip()
        return certified


def _ssh_keygen(*arguments: str | Path, given: bytes = b"") -> bytes:
    return subprocess.run(["ssh-keygen", *arguments], input=given, capture_output=True, check=True).stdout
