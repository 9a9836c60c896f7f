//! One opener: its sites with their stacks, or its sockets, as the report's table tells them.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Text},
};

use super::{
    super::view::{Page, View},
    Paint,
    openers::name,
};
use crate::{
    report::{self, model::OpenerReport},
    stacks::SiteRules,
};

pub(super) fn page(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &mut View,
    rules: &SiteRules,
    paint: Paint,
) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let Page::Opener { key, sockets, .. } = view.page.clone() else {
        return;
    };
    let lines = match view.open_opener() {
        None => {
            let pid = key.pid.map_or_else(String::new, |pid| format!("{pid} "));
            let gone = format!("{pid}has nothing outstanding any more");
            frame.render_widget(Line::styled(gone, paint.bold()), head);
            Vec::new()
        }
        Some(opener) => {
            frame.render_widget(headline(opener, sockets, paint), head);
            let own_netns = view.picture().and_then(|it| it.sample.report.netns);
            match (view.is_listed(opener), sockets) {
                (false, _) => vec![Line::styled("asked for", paint.dim())],
                (true, true) => socket_lines(opener, paint),
                (true, false) => report::opener_lines(opener, own_netns, rules)
                    .into_iter()
                    .map(|(style, line)| Line::styled(line, paint.of_table(style)))
                    .collect(),
            }
        }
    };
    view.fit(usize::from(body.height), lines.len());
    let Page::Opener { first_line, .. } = view.page else {
        return;
    };
    let shown = lines.into_iter().skip(first_line);
    let shown: Vec<Line<'_>> = shown.take(usize::from(body.height)).collect();
    frame.render_widget(Text::from(shown), body);
}

/// `leaker (12171)  30 outstanding  [sites] sockets`
fn headline(opener: &OpenerReport, sockets: bool, paint: Paint) -> Line<'static> {
    let pid = opener
        .pid
        .map_or_else(String::new, |pid| format!(" ({pid})"));
    let pages = if sockets {
        "sites [sockets]"
    } else {
        "[sites] sockets"
    };
    let text = format!(
        "{pages}  {} outstanding  {}{pid}",
        opener.outstanding,
        name(opener)
    );
    Line::styled(text, paint.heading().patch(paint.bold()))
}

fn socket_lines(opener: &OpenerReport, paint: Paint) -> Vec<Line<'static>> {
    let sockets = opener.sockets.iter();
    let mut lines: Vec<_> = sockets
        .map(|socket| Line::raw(report::socket_line(socket)))
        .collect();
    let listed = opener.sockets.len() as u64;
    if listed < opener.outstanding {
        let younger = opener.outstanding - listed;
        lines.push(Line::styled(
            format!("and {younger} younger ones"),
            paint.dim(),
        ));
    }
    lines
}
