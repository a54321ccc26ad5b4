//! Many rows in one statement. A one-row statement costs 12 to 20 µs on SQLite, a row of a
//! multi-row one 2 to 3 µs; PostgreSQL saves round trips. Statements come in sizes of powers of two,
//! so that few are prepared.

use std::fmt::Write as _;

/// Most rows in one statement; 14 columns stay far below SQLite's 32,766 parameters.
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

/// `prefix VALUES ($1, …), (…)…` for `rows` rows of `columns` columns.
pub(super) fn values_sql(prefix: &str, columns: usize, rows: usize) -> String {
    let mut sql = String::with_capacity(prefix.len() + 8 + rows * columns * 6);
    sql.push_str(prefix);
    sql.push_str(" VALUES ");
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            let comma = if column == 0 { "" } else { ", " };
            // Writing to a String can't fail.
            let _: std::fmt::Result = write!(sql, "{comma}${}", row * columns + column + 1);
        }
        sql.push(')');
    }
    sql
}

/// Inserts rows in bulk: `insert_many!(tx, PREFIX, columns, rows, |query, row| query.bind(row.a))`.
macro_rules! insert_many {
    ($tx:expr, $prefix:expr, $columns:expr, $rows:expr, |$query:ident, $row:ident| $bind:expr) => {
        for piece in $crate::store::dialect::pieces($rows) {
            let sql = $crate::store::dialect::values_sql($prefix, $columns, piece.len());
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
    fn placeholders_count_through() {
        assert_eq!(values_sql("INSERT INTO t (a, b)", 2, 2), "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)");
    }
}
