//! The page of every limit the proxy keeps.

use super::{Call, Reply};
use crate::proxy::Limit;

/// The handler of `/limits`: a table, or JSON with `?format=json`.
pub fn limits(table: &'static [Limit]) -> impl Fn(Call) -> std::future::Ready<Reply> + Send + Sync {
    move |call| {
        std::future::ready(match call.query.value("format") {
            Some("json") => Reply::json(&table),
            _ => Reply::text(render(table)),
        })
    }
}

fn render(table: &[Limit]) -> String {
    let rows = table.iter().map(|limit| {
        [limit.name, &limit.default.to_string(), limit.unit, limit.scope, limit.doc].map(str::to_owned)
    });
    let head = ["NAME", "DEFAULT", "UNIT", "SCOPE", "WHEN REACHED"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 5];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.len().max(*width));
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  "));
        format!("{}\n", cells.collect::<String>().trim_end())
    });
    lines.collect()
}
