//! A plot as SVG: a figure over the number of nodes.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 30.0;
const COLOURS: [&str; 4] = ["#2563eb", "#dc2626", "#059669", "#9333ea"];

/// A line of a plot: its name and its points.
pub type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Both axes begin at 0.
pub fn svg(title: &str, unit: &str, lines: &[Line<'_>]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(0.001, f64::max) * 1.1;
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - 20.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" \
         font-size=\"14\">{title}</text>\n"
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y(value);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{value:.1} {unit}</text>",
            WIDTH - 20.0,
            LEFT - 4.0,
            at + 4.0
        );
    }
    for (number, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<_> = points.iter().map(|(nodes, value)| format!("{:.1},{:.1}", x(*nodes), y(*value))).collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
        for (nodes, value) in points {
            let _ =
                writeln!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*nodes), y(*value));
        }
        let at = TOP + 14.0 * f64::from(u32::try_from(number).unwrap_or(0)) + 8.0;
        let _ = writeln!(out, "<text x=\"{}\" y=\"{at:.1}\" fill=\"{colour}\">{name}</text>", LEFT + 10.0);
    }
    for (nodes, _) in lines.iter().flat_map(|(_, points)| points) {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{nodes:.0}</text>",
            x(*nodes),
            HEIGHT - BOTTOM + 16.0
        );
    }
    let _ =
        writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">nodes</text>\n</svg>", WIDTH - 20.0, HEIGHT - 6.0);
    out
}
