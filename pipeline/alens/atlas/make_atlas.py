"""`alens atlas`: every head of some lenses on a page, over the rows of a cache.

In: lenses, a cache of their model, and the model's tokenizer. Out: a directory of static pages, whole or absent, and an
`Atlas`. Heads are read a layer at a time, those of a layer side by side; the map of a head to the vocabulary exists while
this head is read.
Shapes: L layers, H heads, N rows, E d_head, D d_model, V vocabulary.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from alens.atlas import head_page, index_page
from alens.atlas.atlas_folder import INDEX, check_place, head_file, whole_atlas
from alens.atlas.atlas_head import AtlasHead
from alens.atlas.chosen_rows import ChosenRows
from alens.atlas.facts import AtlasFacts
from alens.atlas.head_reading import HeadOnRows, Vocabulary
from alens.atlas.judged_heads import figures_of, judged_heads, read_figures
from alens.atlas.likeness import Likeness
from alens.atlas.result import Atlas, AtlasEntry
from alens.atlas.roles import Roles, scored_roles
from alens.atlas.row_text import RowText
from alens.atlas.settings import AtlasSettings
from alens.atlas.token_index import TokenIndex
from alens.errors import RequestError
from alens.evaluation.evaluate import evaluate
from alens.evaluation.panel import LENS, MEAN_OUTPUT, log_mean_output
from alens.evaluation.settings import EvaluateSettings
from alens.evaluation.shards import check_same_model, judged_text
from alens.heads import Head, Heads
from alens.job.progress import Progress, Report, counting, silent
from alens.lens.lenses import Lenses
from alens.machine.allotment import follow_allotment
from alens.machine.products import fast_float32
from alens.machine.side_by_side import side_by_side
from alens.model import models
from alens.rows.final_norm import FinalNorm
from alens.rows.moments import mean_z
from alens.store import durable
from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z

log = logging.getLogger("alens")


def make_atlas(
    lenses: Lenses,
    cache: Cache,
    out: Path | str,
    *,
    settings: AtlasSettings | None = None,
    figures: Path | str | None = None,
    roles: Roles | None = None,
    model: str | None = None,
    report: Report = silent,
) -> Atlas:
    """Write the atlas of `lenses` over the rows of `cache` into the directory `out`, in the place of an earlier atlas.

    `figures` is a file that `alens eval --json` wrote of these lenses; without one, they are judged on a few rows.
    `roles` are the places of heads in families (`roles_of`); None scores them anew, and without any they are left out.
    `model` says where the model is, whose tokenizer is needed, if it is not where the cache says. Raises `RequestError` for lenses of another site than z, a
    cache of another model or without rows, a model that is not there, and a directory that is not an atlas; `DamageError`
    for damaged files; `RunError` where the disk refuses.
    """
    settings, out = settings or AtlasSettings(), Path(out)
    follow_allotment()
    check_place(out)
    heads = _checked(lenses, cache, settings)
    document = {} if figures is None else read_figures(Path(figures), heads)
    source = models.find_again(cache.plan.model, cache.root, model=model, local_only=True, report=report)
    if source.tokenizer_sha256 != cache.plan.tokens.tokenizer_sha256:
        raise RequestError(
            f"{source.folder} has another tokenizer than {cache.root} was written with: say with --model where the model is"
        )
    tokenizer, _ = models.load_tokenizer(source)
    rows = ChosenRows.of_text(
        cache, judged_text(lenses, cache), settings.rows, int(lenses.record.fit["min_position"])
    )
    if figures is None:
        asked = EvaluateSettings(
            layers=settings.layers,
            heads=settings.heads,
            rows=settings.judged_rows,
            baselines=("scaled-write",) if _no_write(cache) is None else None,
        )
        document = evaluate(lenses, cache, settings=asked, all_shards=True, report=report).to_json()
    no_roles = None
    if roles is None:
        try:
            roles = scored_roles(cache, model, report=report)
        except RequestError as error:  # such as for a model that does not show where its heads look
            roles, no_roles = {}, str(error)
            log.warning("%s: role scores are left out", no_roles)
    writer = _AtlasWriter(lenses, cache, heads, rows, RowText(rows, tokenizer), document, settings, roles)
    with whole_atlas(out) as folder:
        entries = writer.write(folder, report)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Atlas(
        folder=out,
        rows=len(rows),
        judged_rows=figures_of(document)[0],
        files=len(sizes),
        bytes=sum(sizes),
        no_write=writer.no_write,
        no_roles=no_roles if roles or no_roles else "they were not asked for",
        heads=entries,
    )


def _checked(lenses: Lenses, cache: Cache, settings: AtlasSettings) -> Heads:
    """The heads of the atlas. Raises `RequestError` for lenses and a cache that give none."""
    cache.check_rows()
    if lenses.record.site != ATTN_Z:
        raise RequestError(
            f"{lenses.name} reads {lenses.record.site}, and an atlas shows heads: give lenses of z"
        )
    check_same_model(lenses, cache)
    heads = lenses.choose(settings.layers, settings.heads).ordered()
    cache.check_layers(heads.layers)
    return heads


def _no_write(cache: Cache) -> str | None:
    """Why what heads write is not known; None where it is."""
    if cache.plan.model.no_write is not None:
        return cache.plan.model.no_write
    if not cache.plan.model.keeps_norm:
        return f"{cache.root} was written before alens kept the last norm"
    return None


class _AtlasWriter:
    """Reads the heads and writes their pages. Attribute: `no_write`, why what heads write is not known, or None."""

    def __init__(
        self,
        lenses: Lenses,
        cache: Cache,
        heads: Heads,
        rows: ChosenRows,
        text: RowText,
        document: Mapping[str, Any],
        settings: AtlasSettings,
        roles: Roles,
    ) -> None:
        self.lenses, self.cache, self.heads, self.rows, self.text = lenses, cache, heads, rows, text
        self._places = {head: place for place, head in enumerate(heads)}
        self.settings, self.roles = settings, roles
        self.judged, self.figures = judged_heads(document), figures_of(document)
        norm, self.no_write = FinalNorm.of_cache(cache), _no_write(cache)
        if self.no_write is not None:
            log.warning("%s: what heads write is left out", self.no_write)
        known = norm if self.no_write is None else None
        next_ids_N = torch.from_numpy(text.next_ids())
        self.vocabulary = Vocabulary(
            W_U_DV=torch.from_numpy(cache.weights("W_U")),
            log_mean_V=log_mean_output(lenses, cache),
            norm=known,
            next_ids_N=next_ids_N,
        )
        self.scales = None if known is None else rows.scales()
        self.W_O_LHED = torch.from_numpy(cache.weights("W_O"))
        self.tokens = TokenIndex(cache.plan.model.d_vocab, next_ids_N)
        self.likeness = Likeness(self.vocabulary.W_U_DV, len(rows), len(heads))

    def write(self, folder: Path, report: Report) -> list[AtlasEntry]:
        """Write all files."""
        step = counting(report, "read heads", "heads", len(self.heads))
        shown: dict[Head, AtlasHead] = {}
        for layer in self.heads.layers:
            for head in self._layer(layer):
                shown[head.name] = head
                step(1)
        alike = self.likeness.correlations() if self.no_write is None else {}
        pages = counting(report, "write pages", "pages", len(shown))
        facts = AtlasFacts.of_run(self.lenses, self.cache, self.figures, len(self.rows), self.no_write)
        for head in shown.values():
            page = head_page.to_html(
                head,
                self.heads,
                facts,
                roles=self.roles.get(head.name, ()),
                alike=alike.get(head.name),
                token=self.text.token,
            )
            durable.put(folder / head_file(head.name), page.encode())
            pages(1)
        if self.no_write is None:
            self._put_tokens(folder, report)
        entries = [_entry(head) for head in shown.values()]
        index = index_page.to_html(entries, self.heads, facts, self.roles)
        durable.put(folder / INDEX, index.encode())
        return entries

    def _put_tokens(self, folder: Path, report: Report) -> None:
        report(Progress(stage="index tokens"))
        texts = [self.text.token(token) for token in range(self.cache.plan.model.d_vocab)]
        self.tokens.write(folder, texts, self.text.short)

    def _layer(self, layer: int) -> Iterator[AtlasHead]:
        """The heads of a layer, read side by side."""
        numbers = self.heads.by_layer[layer]
        z_HNE = self.rows.z(layer, numbers)
        maps = self.lenses.read_layer(layer).maps
        mean_HE = self.lenses.mean_z(layer, numbers)
        if mean_HE is None:
            mean_HE = mean_z(self.cache, self.heads.within([layer]))[layer]
        readers = [
            HeadOnRows(
                z_NE=z_HNE[place],
                W_O_ED=self.W_O_LHED[layer, head],
                scale_N=None if self.scales is None else self.scales.write(layer),
                mean_E=mean_HE[place],
                maps=maps,
                place=self.lenses.place(layer, head),
                vocabulary=self.vocabulary,
                text=self.text,
                top=self.settings.top,
            )
            for place, head in enumerate(numbers)
        ]
        with fast_float32():
            read = side_by_side(lambda place: readers[place].read(), len(readers))
        for head, reader, (shown, writing) in zip(numbers, readers, read, strict=True):
            if writing is not None:
                self.tokens.add(self._places[layer, head], writing)
                self.likeness.add((layer, head), reader.final(self.likeness.rows_M))
            yield AtlasHead(
                layer=layer,
                head=head,
                says_nothing=self.lenses.record.says_nothing(layer, head),
                judged=self.judged[layer, head],
                **shown,
            )


def _entry(head: AtlasHead) -> AtlasEntry:
    return AtlasEntry(
        layer=head.layer,
        head=head.head,
        page=head_file(head.name),
        says_nothing=head.says_nothing,
        kl=head.judged.readings[LENS].kl,
        gain=head.judged.readings[MEAN_OUTPUT].gain or 0.0,
        write_strength=head.write_strength,
        effect=head.judged.effect,
    )
