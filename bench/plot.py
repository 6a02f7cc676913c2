#!/usr/bin/env python3
"""Draws output tok/s and the part of the byte limit over concurrency, as SVG.

    python3 bench/plot.py FILE [--out PICTURE.svg] [--input-len N] [--output-len N] [--no-reference]

FILE: JSON lines as bench/serving.py reads them; a line for each label. Beside them stands the
reference point of bench/results/serving_reference.jsonl. Without --out the picture is printed.
"""
import argparse
import html
import math
import sys

import serving

WIDTH, HEIGHT = 920, 404
PANEL_TOP, PANEL_BOTTOM = 100, 342
PANELS = [(64, 402), (530, 868)]  # left and right edges
INK, QUIET, GRID, PAPER = "#1f2430", "#667085", "#e4e7ec", "#ffffff"
COLOURS = ["#0b6bcb", "#d9480f", "#2b8a3e", "#7048e8"]
REFERENCE_COLOUR = "#7b8698"


def text(x, y, words, size=12, colour=INK, anchor="start", weight="normal", halo=False):
    around = f' stroke="{PAPER}" stroke-width="3" paint-order="stroke"' if halo else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
            f'text-anchor="{anchor}" font-weight="{weight}"{around}>{html.escape(words)}</text>')


def line(x1, y1, x2, y2, colour=GRID, width=1.0):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}"/>')


def ticks(most):
    """Round values from 0 to at least `most`, five or so."""
    rough = most / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


class Panel:
    """Axes over the concurrencies, evenly spaced by powers of two, and lines of points."""

    def __init__(self, edges, title, unit, xs, most):
        self.left, self.right = edges
        self.xs, self.unit = xs, unit
        self.marks = ticks(most)
        self.points = []
        self.out = [text(self.left, PANEL_TOP - 18, title, 14, weight="600")]
        for mark in self.marks:
            y = self.y(mark)
            self.out.append(line(self.left, y, self.right, y, QUIET if mark == 0 else GRID))
            self.out.append(text(self.left - 8, y + 4, f"{mark:,g}{unit}", 11, QUIET, "end"))
        for x in xs:
            self.out.append(text(self.x(x), PANEL_BOTTOM + 18, str(x), 11, QUIET, "middle"))
        middle = (self.left + self.right) / 2
        self.out.append(text(middle, PANEL_BOTTOM + 38, "requests at once", 11, QUIET, "middle"))

    def x(self, concurrency):
        low, high = math.log2(self.xs[0]), math.log2(self.xs[-1])
        part = (math.log2(concurrency) - low) / (high - low) if high > low else 0.5
        inset = 14
        return self.left + inset + part * (self.right - self.left - 2 * inset)

    def y(self, value):
        return PANEL_BOTTOM - value / self.marks[-1] * (PANEL_BOTTOM - PANEL_TOP)

    def draw(self, points, colour, dashed=False):
        """`points`: {concurrency: value}."""
        places = [(self.x(x), self.y(value), value) for x, value in sorted(points.items())]
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        self.out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                        f'stroke-width="2.2" stroke-linejoin="round"{dash}/>')
        for x, y, value in places:
            self.out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}" '
                            f'stroke="{PAPER}" stroke-width="1.4"/>')
            self.points.append((x, y, value, colour))

    def write_values(self):
        """Each value above its point, below or beside it, where there is room; else not at all."""
        taken = [(x - 4, y - 4, x + 4, y + 4) for x, y, _, _ in self.points]
        for x, y, value, colour in sorted(self.points):  # of those at one place the highest first
            words = f"{value:,.0f}"
            half = 3.4 * len(words) + 1
            aside = half + 7
            for middle, base in (x, y - 9), (x, y + 18), (x + aside, y + 4), (x - aside, y + 4):
                box = (middle - half, base - 9, middle + half, base + 1)
                if box[3] < PANEL_BOTTOM and not any(overlap(box, other) for other in taken):
                    taken.append(box)
                    self.out.append(text(middle, base, words, 10.5, colour, "middle", halo=True))
                    break


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def legend(names):
    """The lines' names in rows from left to right: (name, colour, dashed)."""
    out, x, y = [], PANELS[0][0], 22
    for name, colour, dashed in names:
        width = 29 + 6.9 * len(name)
        if x + width > WIDTH and x > PANELS[0][0]:
            x, y = PANELS[0][0], y + 22
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        out.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x + 22:.1f}" y2="{y}" stroke="{colour}" '
                   f'stroke-width="2.4"{dash}/>')
        out.append(text(x + 29, y + 4, name, 12))
        x += width + 24
    return out


def name_of(config, row):
    label = f", {config[0]}" if config[0] else ""
    return f"Seacliff on {row.get('machine', 'a server')}{label}"


def draw(results, configs):
    references = results.references
    xs = sorted(set(references).union(*(results.rows(config) for config in configs)))
    rates = [{n: row["output_throughput"] for n, row in results.rows(config).items()}
             for config in configs]
    parts = [{n: 100 * part for n, row in results.rows(config).items()
              if (part := results.of_limit(row)) is not None} for config in configs]
    reference = {n: row["output_throughput"] for n, row in references.items()}
    reference_part = {n: 100 * part for n in references
                      if (part := results.reference_of_limit(n)) is not None}
    most = max(value for points in [*rates, reference] for value in points.values())
    most_part = max([value for points in [*parts, reference_part] for value in points.values()],
                    default=50)
    speed = Panel(PANELS[0], "Output tokens a second", "", xs, most * 1.08)
    limit = Panel(PANELS[1], "Part of the byte limit of a decode step", " %", xs,
                  min(100, most_part * 1.12))
    names = []
    for config, colour, rate, part in zip(configs, COLOURS, rates, parts):
        speed.draw(rate, colour)
        limit.draw(part, colour)
        names.append((name_of(config, next(iter(results.rows(config).values()))), colour, False))
    if reference:
        speed.draw(reference, REFERENCE_COLOUR, dashed=True)
        limit.draw(reference_part, REFERENCE_COLOUR, dashed=True)
        names.append((next(iter(references.values()))["machine"], REFERENCE_COLOUR, True))
    speed.write_values()
    limit.write_values()
    foot = [text(PANELS[0][0], HEIGHT - 8,
                 f"{configs[0][1]:,} random tokens in, {configs[0][2]:,} out", 11, QUIET)]
    body = [*legend(names), *speed.out, *limit.out, *foot]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>', *body, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    serving.add_arguments(parser)
    parser.add_argument("--out")
    parser.add_argument("--input-len", type=int, default=1024)
    parser.add_argument("--output-len", type=int, default=1024)
    options = parser.parse_args()
    results = serving.results_of(options)
    wanted = (options.input_len, options.output_len)
    configs = [config for config in results.configs() if config[1:] == wanted]
    if not configs:
        sys.exit(f"{options.file}: has no lines of bench serve with {wanted[0]} tokens in and "
                 f"{wanted[1]} out")
    picture = draw(results, configs[:len(COLOURS)])
    if not options.out:
        print(picture, end="")
        return
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
