//! Help: every key, over whatever is on the screen.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span, Text},
    widgets::Clear,
};

use super::Paint;

/// As many as a screen of ten rows has: what is first is seen on any.
const KEYS: [(&str, &str); 10] = [
    ("q Ctrl-C", "quit"),
    ("j k arrows", "move; PgUp PgDn Home End"),
    ("Enter", "sites and sockets"),
    ("Tab", "sites, sockets"),
    ("Esc", "back; no filter"),
    ("o g a", "sort: outst., growth, age"),
    ("s", "sort by the next"),
    ("/", "filter: name, unit, user"),
    ("f space", "freeze, go on"),
    ("? h", "this; any key leaves it"),
];

pub(super) fn page(frame: &mut Frame<'_>, area: Rect, paint: Paint) {
    let keys = KEYS.map(|(key, what)| {
        Line::from_iter([
            Span::styled(format!("{key:<11} "), paint.bold()),
            Span::raw(what),
        ])
    });
    let mut lines: Vec<Line<'_>> = keys.into();
    // Where there is room for words.
    if usize::from(area.height) > KEYS.len() + 5 {
        lines.push(Line::default());
        for text in [
            "OUTST   outstanding: opened and not yet closed",
            "+/MIN   how many more, a minute, over the last minute",
            "OLDEST  age of the oldest",
            "peak    the most within the bars",
        ] {
            lines.push(Line::styled(text, paint.dim()));
        }
    }
    frame.render_widget(Clear, area);
    frame.render_widget(Text::from(lines), area);
}
