"""Settings of encryption."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveFloat, model_validator

from service.settings.group import Group, NamedPath


class TlsSettings(Group):
    """Encryption of both listeners, TLS 1.2 or newer; without a certificate they are plain."""

    certificate: NamedPath | None = None
    """PEM file of the service's certificate, followed by those of the authorities between it and the root. Read again,
    with the other files, when one of them changes and on SIGHUP; connections that are open live on."""
    key: NamedPath | None = None
    """PEM file of the certificate's private key, without a password."""
    client_certificates: Literal["off", "optional", "required"] = "off"
    """Whether clients must show a certificate; optional: who shows one over HTTP must show a good one, and gRPC, which
    knows no such thing, asks for none."""
    client_ca: NamedPath | None = None
    """PEM file of the authorities whose clients are let in."""
    probe_certificate: NamedPath | None = None
    """PEM file of the certificate, and its key, that the container's health check shows where clients must show one."""
    reread_s: PositiveFloat = 2.0
    """How often to look whether the files have changed."""

    @property
    def on(self) -> bool:
        """Whether the listeners are encrypted."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key need each other")
        asks = self.client_certificates != "off"
        if asks and self.certificate is None:
            raise ValueError("client_certificates needs a certificate and its key")
        if asks != (self.client_ca is not None):
            raise ValueError("client_certificates and client_ca need each other")
        return self
