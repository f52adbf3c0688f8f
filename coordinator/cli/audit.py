"""`ssd-coordinator audit`: what anybody can verify of opened rounds from their transcripts, without a coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordinator.cli import tables
from coordinator.errors import OperatorFault
from ssd.daemon.cli.options import FORM
from ssd.daemon.printable import json_text

if TYPE_CHECKING:
    from ssd.secagg.audit.audit import Audited
    from ssd.trust.participants import Registry

_FILE = click.Path(path_type=Path, dir_okay=False)


class TranscriptRefused(OperatorFault):
    """A transcript, or the registry it is checked against, does not hold."""

    code = "transcript_refused"


@click.command()
@click.argument("transcripts", type=_FILE, nargs=-1, required=True)
@click.option(
    "--registry", "registry_file", type=_FILE, help="Signed registry of participants, for level active."
)
@click.option("--signer", help="Its signer's public key, 64 hex digits.")
@click.option("--federation", help="Whose registry it has to be.")
@click.option(
    "--receipts",
    "receipt_files",
    type=_FILE,
    multiple=True,
    help="What `ssd-worker receipts --format json` of a worker printed; may be given for each.",
)
@FORM
def audit(
    transcripts: tuple[Path, ...],
    registry_file: Path | None,
    signer: str | None,
    federation: str | None,
    receipt_files: tuple[Path, ...],
    form: str,
) -> None:
    """Verify TRANSCRIPTS of opened rounds: messages, sets, thresholds, signatures; several, in the order of their
    rounds, must follow one another: chained, no round id and no model twice, each on the model the one before made.
    With receipts of workers: what each signed is what was opened.
    """
    from ssd.secagg.audit.audit import AuditFailed, check_follows
    from ssd.secagg.audit.audit import audit as verify
    from ssd.secagg.audit.receipts import check_receipts, read_receipts

    if registry_file is not None and (signer is None or federation is None):
        raise click.UsageError("--registry is only worth something with --signer and --federation")
    registry = None if registry_file is None else _registry(registry_file, signer or "", federation or "")
    found: list[Audited] = []
    for path in transcripts:
        before = found[-1].head if found else None
        try:
            each = verify(path.read_bytes(), registry, before=before)
            check_follows(found, each)
            found.append(each)
        except (AuditFailed, OSError) as error:
            raise TranscriptRefused(f"{path}: {error}") from error
    for path in receipt_files:
        try:
            check_receipts(found, read_receipts(path.read_bytes()))
        except (AuditFailed, OSError) as error:
            raise TranscriptRefused(f"{path}: {error}") from error
    if form == "json":
        click.echo(json_text([_plain(each) for each in found]))
        return
    rows = [
        (
            str(each.offer.round),
            each.offer.level.value,
            f"{len(each.survivors)}/{len(each.participants)}",
            str(each.threshold),
            str(each.signatures),
            each.opened.next_model_digest.hex()[:16],
        )
        for each in found
    ]
    click.echo(tables.table(("round", "level", "in sum", "threshold", "signatures", "model"), rows))
    click.echo(f"good: {len(found)} rounds; head {found[-1].head.hex()}")


def _registry(path: Path, signer: str, federation: str) -> Registry:
    from ssd.trust.participants import RegistryRefused, decode

    try:
        return decode(path.read_bytes(), signer, federation)
    except (RegistryRefused, OSError) as error:
        raise TranscriptRefused(f"{path}: {error}") from error


def _plain(each: Audited) -> dict[str, Any]:
    return {
        "round": each.offer.round,
        "attempt": each.offer.attempt,
        "round_id": each.offer.round_id.hex(),
        "level": each.offer.level.value,
        "participants": list(each.participants),
        "survivors": list(each.survivors),
        "threshold": each.threshold,
        "signatures": each.signatures,
        "opened_digest": each.opened.opened_digest.hex(),
        "next_model_digest": each.opened.next_model_digest.hex(),
        "before": each.before.hex(),
        "head": each.head.hex(),
    }
