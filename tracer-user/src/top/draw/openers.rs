//! The openers: one row each, and below them what is known of the selected one.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    text::{Line, Text},
    widgets::{Cell, Row, Table, TableState},
};

use super::{
    super::{order::Order, view::View},
    Paint,
};
use crate::{
    clock::age,
    report::{
        clean,
        model::{OpenerReport, StackReport},
    },
};

pub(super) const PREVIEW_LINES: u16 = 5;

/// A column, and how wide a screen must be to have it.
struct Column {
    head: &'static str,
    width: u16,
    screen_columns: u16,
    order: Option<Order>,
    cell: fn(&OpenerReport, Option<f64>) -> String,
}

impl Column {
    const fn new(
        head: &'static str,
        width: u16,
        screen_columns: u16,
        order: Option<Order>,
        cell: fn(&OpenerReport, Option<f64>) -> String,
    ) -> Self {
        Self {
            head,
            width,
            screen_columns,
            order,
            cell,
        }
    }

    /// Numbers stand on the right.
    fn alignment(&self) -> Alignment {
        if self.order.is_some() || self.head == "PID" {
            Alignment::Right
        } else {
            Alignment::Left
        }
    }
}

const COLUMNS: [Column; 9] = [
    Column::new("PID", 7, 0, None, |opener, _| {
        opener
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string())
    }),
    Column::new("OUTST", 6, 0, Some(Order::Outstanding), |opener, _| {
        opener.outstanding.to_string()
    }),
    Column::new("+/MIN", 7, 0, Some(Order::Growth), |_, growth| {
        growth.map_or_else(|| "-".to_owned(), |growth| format!("{growth:+.1}"))
    }),
    Column::new("OLDEST", 7, 40, Some(Order::Age), |opener, _| {
        opener.oldest_age_s.map_or_else(|| "-".to_owned(), age)
    }),
    Column::new("VERDICT", 14, 72, None, |opener, _| {
        opener
            .trend
            .verdict
            .map_or_else(|| "-".to_owned(), |it| it.to_string())
    }),
    Column::new("USER", 10, 100, None, |opener, _| {
        text(opener.user.as_ref())
    }),
    Column::new("UNIT", 18, 80, None, |opener, _| text(opener.unit.as_ref())),
    Column::new("CONTAINER", 12, 120, None, |opener, _| {
        text(opener.container.as_ref())
    }),
    Column::new("NAME", 0, 0, None, |opener, _| name(opener)),
];

fn text(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| clean(text))
}

pub(super) fn name(opener: &OpenerReport) -> String {
    let name = match (&opener.name, opener.pid) {
        (Some(name), _) => clean(name),
        (None, Some(_)) => "?".to_owned(),
        (None, None) => "unattributed".to_owned(),
    };
    let ended = if opener.ended { " (ended)" } else { "" };
    format!("{name}{ended}")
}

pub(super) fn list(frame: &mut Frame<'_>, area: Rect, view: &mut View, paint: Paint) {
    let all = view.rows().len();
    view.fit(usize::from(area.height.saturating_sub(1)), all);
    let (first, selected) = (view.first_row(), view.selected_row());
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(|column| column.screen_columns <= area.width)
        .collect();
    let rows = view.rows();
    let shown = rows.iter().skip(first).take(usize::from(area.height));
    let rows = shown.map(|&(opener, growth)| {
        let cells = columns.iter().map(|column| {
            Cell::from(Text::from((column.cell)(opener, growth)).alignment(column.alignment()))
        });
        let row = Row::new(cells);
        if opener.outstanding == 0 {
            row.style(paint.dim())
        } else {
            row
        }
    });
    let heads = columns.iter().map(|column| {
        let sorts = column.order == Some(view.order);
        let head = if sorts {
            Line::styled(
                column.head,
                paint.heading().patch(paint.bold()).underlined(),
            )
        } else {
            Line::styled(column.head, paint.heading())
        };
        Cell::from(head.alignment(column.alignment()))
    });
    let widths = columns.iter().map(|column| match column.width {
        0 => Constraint::Min(0),
        width => Constraint::Length(width),
    });
    let table = Table::new(rows, widths)
        .header(Row::new(heads))
        .row_highlight_style(paint.selected())
        .highlight_symbol(">");
    let mut state = TableState::new().with_selected((all > 0).then(|| selected - first));
    frame.render_stateful_widget(table, area, &mut state);
    if all == 0 && view.picture().is_some() && area.height > 1 {
        let why = if view.filter.is_empty() {
            "nobody has a connection open"
        } else {
            "the filter lets nobody through"
        };
        let below = Rect {
            y: area.y + 1,
            height: 1,
            ..area
        };
        frame.render_widget(Line::styled(why, paint.dim()), below);
    }
}

/// The selected opener and its largest sites, for whoever does not want to open it.
pub(super) fn preview(frame: &mut Frame<'_>, area: Rect, view: &View, paint: Paint) {
    let Some((opener, _)) = view.selected_opener() else {
        return;
    };
    let opened = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let mut lines = vec![
        Line::styled(
            format!(
                "{}  opened {}  closed {}",
                name(opener),
                opened(opener.opened),
                opened(opener.closed)
            ),
            paint.bold(),
        ),
        Line::styled(clean(&opener.cmdline.join(" ")), paint.dim()),
    ];
    if view.is_listed(opener) {
        lines.extend(
            opener
                .stacks
                .iter()
                .map(|stack| Line::raw(site_line(stack))),
        );
    }
    frame.render_widget(Text::from(lines), area);
}

/// `26 from leaker.rs:24 get_client`
fn site_line(stack: &StackReport) -> String {
    let count = stack.outstanding;
    let Some(site) = &stack.site else {
        let note = stack.note.as_deref().unwrap_or("no application frame");
        return format!("{count:>6}  {}", clean(note));
    };
    let file = site.file.as_deref().map(|file| {
        let last = file.rsplit('/').next().unwrap_or(file);
        match site.line {
            Some(line) => format!("{last}:{line} "),
            None => format!("{last} "),
        }
    });
    let function = site.function.as_deref().unwrap_or("?");
    let place = format!("{}{function}", file.unwrap_or_default());
    format!("{count:>6}  from {}", clean(&place))
}
