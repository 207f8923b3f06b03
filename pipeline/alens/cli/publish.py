"""`alens publish`: lenses for the Hugging Face hub; a dry run unless --upload is given."""

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import aside, show, show_json
from alens.cli.options import Flag, SettingsOptions, json_option
from alens.cli.value_types import PathName
from alens.cli.watch import stopping, watching
from alens.errors import RequestError
from alens.exchange.request import BundleRequest, UploadSettings
from alens.printable import printable

if TYPE_CHECKING:
    from alens.exchange.bundle import Bundle
    from alens.exchange.upload import Uploaded

BUNDLE = SettingsOptions(
    BundleRequest,
    without=("lenses",),
    repository=Flag("--repo", "repository", metavar="OWNER/NAME"),
    figures=Flag(metavar="FILE"),
    license_id=Flag("--license", "license_id", metavar="ID"),
)
UPLOAD = SettingsOptions(UploadSettings, revision=Flag(metavar="BRANCH"))


@click.command(
    "publish",
    epilog="Example: alens publish layer-11 --repo me/gpt2-layer-11-lenses --store gpt2-cache",
)
@click.argument("lenses", type=PathName())
@BUNDLE
@UPLOAD
@click.option("--out", type=PathName(), metavar="FOLDER", help="Write the bundle there, too.")
@click.option("--upload", is_flag=True, help="Upload it.  [default: a dry run, nothing leaves the machine]")
@click.option("--keep-paths", is_flag=True, help="Upload figures even if they name paths of this machine.")
@json_option
@config_option
def command(
    lenses: Path,
    out: Path | None,
    upload: bool,
    keep_paths: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Prepare LENSES for the Hugging Face hub, and with --upload put them there in one commit.

    The bundle holds the weights, each file checked, a model card, held-out figures, and with --store what the
    lenses were fitted on. Absolute paths and host names are left out of it. Without --upload nothing leaves the
    machine: what would be uploaded, and what is missing, is shown. `alens read hf://OWNER/NAME` reads it.
    """

    with stopping() as should_stop, watching() as report:
        from alens.exchange import bundle as bundles
        from alens.exchange import upload as uploads
        from alens.store.paths import LENS_JSON

        request = BundleRequest(lenses=lenses, **BUNDLE.values(given))
        settings = UploadSettings(**UPLOAD.values(given))
        if out is not None:
            bundles.check_out(out)
        if upload:
            uploads.check_can_upload()
        bundle = bundles.prepare(request, report=report, should_stop=should_stop)
        if upload and bundle.named and not keep_paths:
            raise RequestError(
                f"figures name places of this machine ({'; '.join(bundle.named[:3])}): take them out, or give --keep-paths"
            )
        if out is not None:
            bundles.write(bundle, out)
        done = None
        if upload:
            logging.getLogger("alens").info(f"uploading {bundle.bytes:,} bytes to {request.repository}")
            done = uploads.upload(
                request.repository,
                {file.path: file.source for file in bundle.files},
                settings,
                message=bundle.message,
                mark=LENS_JSON,
            )
    private, branch = settings.private, settings.revision or "main"
    where = {"private": private, "revision": branch, "out": None if out is None else str(out)}
    with contextlib.nullcontext() if done is None and out is None else aside():
        if as_json:
            show_json({**bundle.to_json(), **where, "uploaded": _uploaded(done)})
            return
        _show(bundle, has_token=uploads.has_token())
        if out is not None:
            show(f"written to {out}")
        at = f"{request.repository}, {'private' if (done.private if done else private) else 'public'}, branch {branch}"
        if done is None:
            show(f'to {at}, as "{bundle.message}"')
            show("dry run: nothing left this machine; --upload uploads it")
            return
        _say(done, at)


def _uploaded(done: "Uploaded | None") -> dict[str, Any] | None:
    if done is None:
        return None
    return {
        "commit": done.commit,
        "url": done.url,
        "private": done.private,
        "changed": done.changed,
        "replaced": list(done.replaced),
    }


def _show(bundle: "Bundle", *, has_token: bool) -> None:
    from alens.cli.tables import show_table

    show_table(
        ("file", "bytes", "SHA-256", "what"),
        [(printable(file.path), f"{file.bytes:,}", file.sha256[:12], file.what) for file in bundle.files],
        text=("file", "what"),
    )
    show(f"{len(bundle.files)} files, {bundle.bytes:,} bytes")
    for one in bundle.shortened:
        show(f"shortened: {one.file}, {one.field}: {one.was} becomes {one.becomes}")
    for place in bundle.named:
        show(f"names a place of this machine: {place}")
    for line in bundle.missing:
        show(f"missing: {line}")
    if not has_token:
        show("missing: a token of the hub: run `hf auth login`, or set HF_TOKEN")


def _say(done: "Uploaded", at: str) -> None:
    if not done.changed:
        show(f"{done.url} held just these files: no commit was made")
        return
    show(f"uploaded to {at}: {done.url}, commit {done.commit}")
    if done.replaced:
        show(f"were there before, and the history keeps them: {', '.join(done.replaced)}")
