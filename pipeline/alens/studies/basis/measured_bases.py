"""The influence of the directions of each basis, on the reading and on the model's own output.

In: a `CheckedStudy`, and the `SearchedBases` of the heads of a layer. Out: `HeadBases`, with figures for each basis.
Shapes: N rows, S sequences, T tokens, P positions that are ablated, E d_head, K directions, A ablations.
"""

from collections.abc import Callable, Sequence

import torch

from alens.job.progress import Progress, Report
from alens.model import activations
from alens.model.activations import Activations
from alens.studies.basis.causal_fidelity import basis_fidelity
from alens.studies.basis.head_bases import SearchedBases
from alens.studies.basis.lens_influence import lens_influence
from alens.studies.basis.model_influence import model_influence
from alens.studies.basis.result import DirectionSet, HeadBases
from alens.studies.basis.study import CheckedStudy
from alens.studies.basis.subspaces import removals


def measure_layer(
    study: CheckedStudy, heads: Sequence[SearchedBases], report: Report, *, done: int, total: int
) -> list[HeadBases]:
    """Measure the heads of one layer. For `report`: `done` of `total` heads were measured before."""
    layer, S = heads[0].layer, len(study.sample.tokens_ST)
    tokens_ST = torch.from_numpy(study.sample.tokens_ST)
    with torch.inference_mode():
        clean = [activations.run(study.reader.model, tokens_T[None], [layer]) for tokens_T in tokens_ST]
    measured = []
    for number, head in enumerate(heads, start=done):

        def one_more(s: int, head: SearchedBases = head, number: int = number) -> None:
            report(
                Progress(
                    stage="ablate",
                    done=number * S + s + 1,
                    total=total * S,
                    unit="sequences",
                    note=f"head {layer}.{head.head}",
                )
            )

        measured.append(_measure_head(study, head, tokens_ST, clean, one_more))
    return measured


def _measure_head(
    study: CheckedStudy,
    head: SearchedBases,
    tokens_ST: torch.Tensor,
    clean: Sequence[Activations],
    one_more: Callable[[int], None],
) -> HeadBases:
    """Measure one head; `clean` are the runs without ablation, and `one_more` is called after each sequence."""
    settings, S, P = study.settings, len(tokens_ST), study.positions
    z_NE = torch.cat([run.z_BTHE[head.layer][0, -P:, head.head].float() for run in clean])
    donors_NE = head.donors(z_NE, settings.ablation, settings.seed)
    # first an ablation of all directions of z; then, for each basis, of each direction and of the first ones together
    spans = [torch.eye(z_NE.shape[1], dtype=torch.float64)]
    for basis_KE in head.bases.values():
        spans += [*basis_KE[:, None], basis_KE[: settings.top]]
    removals_AEE = removals(head.coordinates, spans).to(z_NE.device)
    model_AS = _model_influences(study, head, tokens_ST, clean, donors_NE, removals_AEE, one_more)
    sets, step = [], study.directions + 1
    for place, (name, basis_KE) in enumerate(head.bases.items()):
        ablations = [0, *range(1 + place * step, 1 + (place + 1) * step)]
        lens_AN = lens_influence(head.reader(name), z_NE, donors_NE, removals_AEE[ablations])
        fidelity, drawn_R = basis_fidelity(
            name,
            lens_AN.reshape(len(ablations), S, P).sum(-1).numpy(),
            model_AS[ablations].numpy(),
            positions=P,
            groups_S=study.sample.groups_S,
            seed=settings.seed,
        )
        sets.append(
            DirectionSet(
                fidelity=fidelity,
                drawn_R=drawn_R,
                reads_KE=head.coordinates.reads(basis_KE),
                writes_KE=head.coordinates.writes(basis_KE),
            )
        )
    return HeadBases(
        layer=head.layer,
        head=head.head,
        says_nothing=study.reader.lenses.record.says_nothing(head.layer, head.head),
        mean_E=head.coordinates.mean_E,
        bases=sets,
    )


def _model_influences(
    study: CheckedStudy,
    head: SearchedBases,
    tokens_ST: torch.Tensor,
    clean: Sequence[Activations],
    donors_NE: torch.Tensor,
    removals_AEE: torch.Tensor,
    one_more: Callable[[int], None],
) -> torch.Tensor:
    """(A, S) float64: the influence of each ablation on the model, summed over the positions of a sequence."""
    P = study.positions
    model_AS = torch.empty(len(removals_AEE), len(tokens_ST), dtype=torch.float64)
    for s, (tokens_T, run) in enumerate(zip(tokens_ST, clean, strict=True)):
        model_AS[:, s] = model_influence(
            study.reader.model,
            tokens_T,
            run.final_BTD[0],
            layer=head.layer,
            head=head.head,
            donors_PE=donors_NE[s * P : (s + 1) * P],
            removals_AEE=removals_AEE,
        ).sum(-1)
        one_more(s)
    return model_AS
