"""An evaluation as one page of HTML that needs no other file."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

from striate.evaluation.result import ClassResult, Evaluation, Share, shown
from striate.evaluation.sheet import thumbnail
from striate.images import Preset

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1c1d; --pale: #6c6f73; --paper: #fff; --line: #e3e4e6;
  --bad: #b3261e; --bar: #d9534f55; --card: #f6f6f7 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --pale: #9a9da1; --paper: #17181a;
  --line: #2e3033; --bad: #ff8a80; --bar: #ff8a8055; --card: #202225 } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
p { margin: .3rem 0 } .pale { color: var(--pale) } .bad { color: var(--bad) }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1.4rem }
.card { flex: 1 1 14rem; background: var(--card); border-radius: 10px; padding: 1rem 1.2rem }
.card b { display: block; font-size: 2rem; line-height: 1.2; font-weight: 600 }
.range { position: relative; height: 6px; margin: .6rem 0 .3rem; border-radius: 3px;
  background: var(--line) }
.range i { position: absolute; height: 6px; border-radius: 3px; min-width: 3px;
  background: var(--bad) }
table { border-collapse: collapse; width: 100% } th { text-align: left; font-weight: 600 }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.bar { background: linear-gradient(to right, var(--bar) var(--w), transparent var(--w)) }
td img { width: 40px; height: 40px; border-radius: 4px; display: block }
.grid { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; width: 140px } figure img { width: 100%; border-radius: 6px; display: block }
figcaption { font-size: .82rem; line-height: 1.35; margin-top: .35rem; overflow-wrap: anywhere }
summary { cursor: pointer; color: var(--pale) }
"""


def as_html(evaluation: Evaluation, most: int = 24) -> str:
    """The page: errors, surest mistakes, confusions, classes, and what was left out."""
    parts = [
        f"<h1>{escape(evaluation.model)}</h1>",
        f'<p class="pale">{escape(_about(evaluation))}</p>',
        '<div class="cards">',
        _card("top-1 error", evaluation.top1_error),
        _card("top-5 error", evaluation.top5_error),
        "</div>",
        *_mistakes(evaluation, most),
        *_confusions(evaluation, most),
        *_classes(evaluation.by_class()),
        *_left_out(evaluation),
    ]
    title = escape(f"{evaluation.model} on {evaluation.data}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _about(evaluation: Evaluation) -> str:
    preset = evaluation.preset
    classes = len({one.label for one in evaluation.outcomes})
    speed = evaluation.images_per_second
    timed = f"; {speed:.3g} images a second" if speed else ""
    return (
        f"{evaluation.data}: {len(evaluation.outcomes)} images of {classes} classes; short side "
        f"{preset.resize}, crop {preset.crop}, {preset.interpolation}{timed}"
    )


def _card(title: str, share: Share) -> str:
    low, high = share.interval
    return (
        f'<div class="card">{title}<b>{share.value:.2%}</b><div class="range">'
        f'<i style="left:{low:.2%};width:{high - low:.2%}"></i></div>'
        f'<span class="pale">95%: {low:.2%} to {high:.2%}<br>'
        f"{share.count} of {share.total}; accuracy {1 - share.value:.2%}</span></div>"
    )


def _mistakes(evaluation: Evaluation, most: int) -> list[str]:
    mistakes = evaluation.mistakes()
    if not mistakes:
        return []
    preset = Preset.of(evaluation.preset)
    figures = [
        f'<figure><img alt="" src="{_data(thumbnail(one.path, preset, 140))}"><figcaption>'
        f"is <b>{escape(evaluation.name(one.label))}</b><br>"
        f'<span class="bad">{one.confidence:.0%} {escape(evaluation.name(one.guess))}</span><br>'
        f'<span class="pale">{escape(shown(one.path))}</span></figcaption></figure>'
        for one in mistakes[:most]
    ]
    return [
        _title("Surest mistakes", most, len(mistakes)),
        '<div class="grid">',
        *figures,
        "</div>",
    ]


def _confusions(evaluation: Evaluation, most: int) -> list[str]:
    pairs = evaluation.confusions()
    if not pairs:
        return []
    preset = Preset.of(evaluation.preset)
    rows = [
        [
            f'<td><img alt="" src="{_data(thumbnail(one.example.path, preset, 40))}"></td>',
            f"<td>{escape(evaluation.name(one.label))}</td>",
            f"<td>{escape(evaluation.name(one.guess))}</td>",
            f'<td class="n">{one.count}</td>',
        ]
        for one in pairs[:most]
    ]
    head = ["", "class", "taken for", "images"]
    return [_title("Confusions", most, len(pairs)), _table(head, rows)]


def _classes(results: Sequence[ClassResult]) -> list[str]:
    rows = [
        [
            f"<td>{escape(one.name)}</td>",
            f'<td class="pale">{escape(one.synset or str(one.index))}</td>',
            f'<td class="n">{one.top1_error.total}</td>',
            _bar(one.top1_error),
            _bar(one.top5_error),
        ]
        for one in results
    ]
    table = _table(["class", "", "images", "top-1 error", "top-5 error"], rows)
    opened = " open" if len(rows) <= 50 else ""
    summary = f"<summary>all {len(rows)}, the worst first</summary>"
    return ["<h2>Classes</h2>", f"<details{opened}>{summary}", table, "</details>"]


def _left_out(evaluation: Evaluation) -> list[str]:
    groups = (
        (
            "Unreadable images",
            [f"{shown(one.path)}: {one.reason}" for one in evaluation.failures],
        ),
        (
            "Files that were named before",
            [
                f"{shown(one.path)} is {shown(one.first)}"
                + (", and said to be of another class" if one.contradicts else "")
                for one in evaluation.duplicates
            ],
        ),
        ("Images without a class", [shown(path) for path in evaluation.unlabelled]),
    )
    return [
        f"<h2>{title}</h2><p>Not counted: {len(lines)}.</p><details><summary>their names</summary>"
        f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul></details>"
        for title, lines in groups
        if lines
    ]


def _title(words: str, most: int, total: int) -> str:
    shown_of = f' <span class="pale">{most} of {total}</span>' if total > most else ""
    return f"<h2>{words}{shown_of}</h2>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numbers = ("images", "top-1 error", "top-5 error")
    heads = "".join(f"<th{' class=n' if one in numbers else ''}>{one}</th>" for one in head)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table>"


def _bar(share: Share) -> str:
    return f'<td class="n bar" style="--w:{share.value:.1%}">{share.value:.1%}</td>'


def _data(image: Image.Image) -> str:
    """A picture within the page."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
