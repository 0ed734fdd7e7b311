"""The report of `svp evaluate demo`: tables beside baselines, charts, contact sheet, strips and clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .charts import line_chart, project_codes, scatter_chart
from .comparison import BLENDS, MODEL, SAMPLED, Comparison, Sample
from .figures import RECONSTRUCTION, STYLE_TRANSFER, Row, Table, paper_rows
from .pictures import contact_row, png_bytes, resized, sheet, side_by_side, strip_row
from .protocols import LAG_REACH, Evaluation, StyleCodes
from .report import Chart, Clip, Picture, Report, Section, installed_versions

SHEET_ROWS, CLIPS, WORST = 6, 3, 3
PAPER_COLUMNS = {
    RECONSTRUCTION: ("fvd", "fid", "psnr", "ssim", "paper_f_lmd", "paper_m_lmd", "sync_offset", "sync_confidence"),
    STYLE_TRANSFER: ("fvd", "fid", "psnr", "ssim", "paper_f_lmd", "paper_m_lmd", "stylesim"),
}
RADII = {1: 2.5, 2: 4.0, 3: 6.0}  # of a point, by intensity
SUMMARY = (
    "A model on drawn people and sentences that training never saw. Everything is read from pixels, and every figure stands beside "
    "what needs no model at all."
)


def demo_report(evaluation: Evaluation, config: Mapping[str, object], seeds: Sequence[Table] = ()) -> Report:
    """evaluation: of `run_evaluation`, with its comparison; seeds: tables over several seeds, see `seed_tables`."""
    comparison = evaluation.comparison
    assert comparison is not None
    tables = list(comparison.tables())
    worst = sorted(comparison.samples, key=lambda sample: sample.figures.get("mouth_psnr", 0.0))[:WORST]
    sections = [
        Section("Several seeds", "All that follows is of the first one.", tables=tuple(seeds)),
        Section("Reconstruction", tables=tuple(tables[:2]), charts=tuple(_curves(evaluation, comparison))),
        Section("Style transfer", tables=tuple(tables[2:]), pictures=tuple(_strips(comparison))),
        Section("Emotions", tables=tuple(evaluation.emotions.tables())),
        Section(
            "The paper's figures",
            "Of photographs in MEAD and HDTF at 512 pixels, where ours are of drawings: they show the scale, not a contest.",
            tables=tuple(_beside_paper(comparison)),
        ),
        Section("Styles", tables=tuple(_clustering(evaluation)), charts=_planes(evaluation.codes)),
        Section("Contact sheet", pictures=(contact_sheet(comparison.samples[:SHEET_ROWS]),)),
        Section("Clips", clips=tuple(_clip(sample) for sample in comparison.transfers[:CLIPS])),
        Section(
            "Worst clips", "Those with the lowest PSNR of the mouth.", clips=tuple(_clip(sample) for sample in worst)
        ),
    ]
    missing = {
        name: "the weights of its network are not part of the demo: `svp evaluate SUITE.toml` takes them by path"
        for name in ("fvd", "fid", "lpips", "sync_confidence")
    }
    return Report(
        f"Evaluation of {config.get('model', 'the built-in model')}",
        SUMMARY,
        tuple(section for section in sections if section.tables or section.charts or section.pictures or section.clips),
        missing,
        config,
        installed_versions(),
    )


def contact_sheet(samples: Sequence[Sample]) -> Picture:
    """Portrait, truth, warped portrait and model, and mouth and eyes of them enlarged: one row a case."""
    image = sheet([contact_row(sample.frames, sample.landmarks) for sample in samples])
    shown = ", ".join(samples[0].frames)
    return Picture(
        f"From the left: {shown}; mouths and eyes enlarged. The frame with the widest mouth of each clip.",
        f"Contact sheet of {len(samples)} people, one a row: {shown}, then their mouths and eyes enlarged",
        png_bytes(image),
    )


def _clip(sample: Sample) -> Clip:
    shown = ", ".join(sample.frames)
    psnr = sample.figures.get("mouth_psnr")
    return Clip(
        f"{sample.name}. Row by row from the left: {shown}."
        + (f" PSNR of the mouth {psnr:.2f} dB." if psnr is not None else ""),
        f"{sample.name}: the clips {shown} beside one another, with the speech",
        side_by_side(sample.frames, sample.fps, sample.audio),
    )


def _curves(evaluation: Evaluation, comparison: Comparison) -> list[Chart]:
    names = {"generated": MODEL, "swapped": "another speech", "analyser": "true frames"}
    lags = {
        names[key]: [(lag - LAG_REACH, float(value)) for lag, value in enumerate(curve)]
        for key, curve in evaluation.lags.items()
    }
    charts = [
        Chart(
            "Correlation of mouth opening with truth's, by lag: it should be high at lag 0, and near zero with another speech.",
            line_chart("Correlation of mouth opening by lag", lags, "lag in frames, positive: late", "correlation"),
        )
    ]
    if comparison.step_figures("psnr"):
        lines = {
            title: [(float(count), value) for count, value in comparison.step_figures(figure).items()]
            for title, figure in (("whole picture", "psnr"), ("mouth", "mouth_psnr"))
        }
        charts.append(
            Chart("PSNR by denoising steps.", line_chart("PSNR by denoising steps", lines, "denoising steps", "dB"))
        )
    places = evaluation.figures.get("interpolation")
    if isinstance(places, list):
        line = [(index / (len(places) - 1), float(value)) for index, value in enumerate(places)]
        ideal = [(0.0, 0.0), (1.0, 1.0)]
        chart = line_chart(
            "Expression between two styles",
            {MODEL: line, "even": ideal},
            "weight of the second style",
            "way of the expression",
        )
        charts.append(Chart("How far the mean expression has gone from one style to another, by the weight.", chart))
    return charts


def _strips(comparison: Comparison) -> list[Picture]:
    found = []
    if comparison.transfers:
        rows = [strip_row(sample.frames, sample.landmarks) for sample in comparison.transfers[:4]]
        found.append(
            Picture(
                "With and without style, sampled and mean: "
                + "; ".join(s.name for s in comparison.transfers[:4])
                + ".",
                f"Strips of {len(rows)} cases: {', '.join(rows[0])}",
                png_bytes(sheet(rows)),
            )
        )
    if comparison.blend:
        row = {f"weight {weight:g}": resized(frame) for weight, frame in zip(BLENDS, comparison.blend, strict=True)}
        found.append(
            Picture(
                "From the style of one emotion to that of another: weights of the second style.",
                f"The same frame at the weights {', '.join(f'{weight:g}' for weight in BLENDS)}",
                png_bytes(sheet([row])),
            )
        )
    return found


def _beside_paper(comparison: Comparison) -> list[Table]:
    own = {
        RECONSTRUCTION: (comparison.reconstruction_rows(), (MODEL, "warped portrait")),
        STYLE_TRANSFER: (comparison.transfer_rows(), (SAMPLED, "SVP without style")),
    }
    tables = []
    for protocol, (rows, names) in own.items():
        ours = tuple(
            Row(f"{row.label} (drawn people)", row.values, row.intervals, competes=False)
            for row in rows
            if row.label in names
        )
        if ours:
            title = protocol.replace("_", " ").capitalize()
            tables.append(Table(f"{title}, beside the paper", PAPER_COLUMNS[protocol], (*paper_rows(protocol), *ours)))
    return tables


def _clustering(evaluation: Evaluation) -> list[Table]:
    found = evaluation.codes.strength()
    columns = tuple(next(iter(found.values())))
    published = {
        "audio": {"angry": 2.44, "contempt": 2.12, "disgusted": 2.51, "happy": 2.49},
        "expression": {"angry": 6.25, "contempt": 4.89, "disgusted": 7.45, "happy": 8.07},
        "both": {"angry": 6.57, "contempt": 5.64, "disgusted": 7.63, "happy": 8.38},
    }
    rows = [Row(f"{name} only" if name != "both" else name, values) for name, values in found.items()]
    rows += [
        Row(f"{name} (paper)", {key: value for key, value in values.items() if key in columns}, competes=False)
        for name, values in published.items()
    ]
    note = "Distance of an emotion's styles from those of the person's other emotions over their own spread, by what is read."
    return [Table("Clustering strength (8)", columns, tuple(rows), note)]


def _planes(codes: StyleCodes) -> tuple[Chart, Chart]:
    """The styles in a plane: by emotion, and by intensity (figure 5)."""
    plane, method = project_codes(codes.codes["both"])
    sizes = [RADII[intensity] for intensity in codes.intensities]
    strengths = [f"intensity {intensity}" for intensity in codes.intensities]
    people = len(set(codes.identities))
    shown = f"Means of style priors by {method}, {len(plane)} clips of {people} people"
    return (
        Chart(
            f"{shown}: colour and shape are the emotion, size is the intensity.",
            scatter_chart(f"Style priors by {method} and emotion", plane, codes.emotions, sizes),
        ),
        Chart(
            "The same by intensity, from 1 (weak) to 3 (strong).",
            scatter_chart(f"Style priors by {method} and intensity", plane, strengths, sizes),
        ),
    )
