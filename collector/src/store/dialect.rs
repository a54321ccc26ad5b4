//! Many rows in one statement. A one-row statement costs 12 to 20 µs on SQLite, a row of a
//! multi-row one 2 to 3 µs; PostgreSQL saves round trips. Statements come in sizes of powers of two,
//! so that few are prepared.

use std::fmt::Write as _;

/// Most rows in one statement; 15 columns stay far below SQLite's 32,766 parameters.
const MAX_ROWS: usize = 256;

/// Splits rows into pieces whose lengths are powers of two.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        if rows.is_empty() {
            return None;
        }
        let size = MAX_ROWS.min(1 << rows.len().ilog2());
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

/// How a database writes the place of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholder {
    /// `?`. On SQLite `$1` is a name, and each is looked up in the list of all names: with
    /// thousands of them that costs several times the insert.
    Plain,
    /// `$1`, `$2`, …
    Numbered,
}

/// `prefix VALUES (…), (…)…` for `rows` rows of `columns` columns.
pub(super) fn values_sql(
    prefix: &str,
    rows: usize,
    columns: usize,
    placeholder: Placeholder,
) -> String {
    let mut sql = String::with_capacity(prefix.len() + 8 + rows * columns * 6);
    sql.push_str(prefix);
    sql.push_str(" VALUES ");
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            let comma = if column == 0 { "" } else { ", " };
            let number = row * columns + column + 1;
            // Writing to a String can't fail.
            let _: std::fmt::Result = match placeholder {
                Placeholder::Plain => write!(sql, "{comma}?"),
                Placeholder::Numbered => write!(sql, "{comma}${number}"),
            };
        }
        sql.push(')');
    }
    sql
}

/// `prefix ?, ?, …)` for `count` values of a list.
pub(super) fn in_sql(prefix: &str, count: usize, placeholder: Placeholder) -> String {
    let mut sql = String::with_capacity(prefix.len() + 1 + count * 6);
    sql.push_str(prefix);
    for number in 1..=count {
        let comma = if number == 1 { "" } else { ", " };
        // Writing to a String can't fail.
        let _: std::fmt::Result = match placeholder {
            Placeholder::Plain => write!(sql, "{comma}?"),
            Placeholder::Numbered => write!(sql, "{comma}${number}"),
        };
    }
    sql.push(')');
    sql
}

/// Inserts rows in bulk: `insert_many!(tx, PREFIX, columns, rows, |query, row| query.bind(row.a))`.
macro_rules! insert_many {
    ($tx:expr, $prefix:expr, $columns:expr, $rows:expr, |$query:ident, $row:ident| $bind:expr) => {
        for piece in $crate::store::dialect::pieces($rows) {
            let placeholder = $tx.placeholder();
            let sql = $crate::store::dialect::values_sql($prefix, piece.len(), $columns, placeholder);
            $crate::store::tx::on_tx!($tx, c => {
                let mut $query = sqlx::query(sqlx::AssertSqlSafe(sql));
                for $row in piece {
                    $query = $bind;
                }
                $query.execute(c).await.map(drop)
            })?;
        }
    };
}

pub(super) use insert_many;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_rows_in_order() {
        let rows: Vec<usize> = (0..777).collect();
        let sizes: Vec<usize> = pieces(&rows).map(<[usize]>::len).collect();
        assert_eq!(sizes, [256, 256, 256, 8, 1]);
        assert_eq!(pieces(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        assert_eq!(pieces::<u8>(&[]).count(), 0);
    }

    #[test]
    fn placeholders_are_what_each_database_wants() {
        let sql = |placeholder| values_sql("INSERT INTO t (a, b)", 2, 2, placeholder);
        assert_eq!(
            sql(Placeholder::Plain),
            "INSERT INTO t (a, b) VALUES (?, ?), (?, ?)"
        );
        assert_eq!(
            sql(Placeholder::Numbered),
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)"
        );
    }
}
