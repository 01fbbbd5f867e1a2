"""Panels of curves as one SVG, without a library: panels([(title, x label, y label, {name: [(x, y), ...]}, aim), ...]). Axes are logarithmic."""
import math
from xml.sax.saxutils import escape

W, H, LEFT, TOP, RIGHT, BOTTOM = 360, 250, 58, 34, 14, 44
COLOURS = "#1f5fa8 #c4511d #2b8a3e #7a3e9d".split()


def nice(v):
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")):
        if abs(v) >= size:
            return f"{v / size:.3g}{sign}"
    return f"{v:.2g}"


def ticks(low, high):
    """Powers of ten in the range, with 2 and 5 between them where the range is short."""
    steps = (1, 2, 5) if math.log10(high / low) < 1.7 else (1,)
    return [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in steps
            if low * 0.999 <= m * 10.0**e <= high * 1.001]


def panel(title, x_label, y_label, curves, aim):
    points = [p for curve in curves.values() for p in curve]
    xs, ys = [x for x, _ in points], [y for _, y in points] + ([aim] if aim else [])
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    middle = math.sqrt(y0 * y1)
    y0, y1 = min(y0 / 1.2, middle / 3), max(y1 * 1.2, middle * 3)  # noise on a flat curve is not to look like a bend
    x1 = x1 if x1 > x0 else x0 * 10

    def at(x, y):
        return (LEFT + (W - LEFT - RIGHT) * math.log(x / x0) / math.log(x1 / x0), H - BOTTOM - (H - TOP - BOTTOM) * math.log(y / y0) / math.log(y1 / y0))

    out = [f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>',
           f'<rect x="{LEFT}" y="{TOP}" width="{W - LEFT - RIGHT}" height="{H - TOP - BOTTOM}" fill="none" stroke="#888"/>']
    for t in ticks(x0, x1):
        x = at(t, y0)[0]
        out.append(f'<path d="M{x:.1f} {TOP}V{H - BOTTOM}" stroke="#ddd"/><text x="{x:.1f}" y="{H - BOTTOM + 14}" text-anchor="middle">{nice(t)}</text>')
    for t in ticks(y0, y1):
        y = at(x0, t)[1]
        out.append(f'<path d="M{LEFT} {y:.1f}H{W - RIGHT}" stroke="#ddd"/><text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{nice(t)}</text>')
    if aim:
        y = at(x0, aim)[1]
        out.append(f'<path d="M{LEFT} {y:.1f}H{W - RIGHT}" stroke="#555" stroke-dasharray="4 3"/><text x="{W - RIGHT - 3}" y="{y - 4:.1f}" text-anchor="end">aim</text>')
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        dots = [at(x, y) for x, y in curve]
        out.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in dots)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in dots]
        if len(curves) > 1:
            out.append(f'<text x="{LEFT + 8}" y="{TOP + 16 + 14 * i}" fill="{colour}">{escape(name)}</text>')
    out.append(f'<text x="{(LEFT + W - RIGHT) / 2}" y="{H - 8}" text-anchor="middle">{escape(x_label)}</text>')
    out.append(f'<text transform="translate(13 {(TOP + H - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return "\n".join(out)


def panels(all_of_them, columns=3):
    rows = (len(all_of_them) + columns - 1) // columns
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{W * columns}" height="{H * rows}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for i, p in enumerate(all_of_them):
        out.append(f'<g transform="translate({W * (i % columns)} {H * (i // columns)})">{panel(*p)}</g>')
    return "\n".join(out) + "\n</svg>\n"
