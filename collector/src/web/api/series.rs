//! A host's metrics over time, in columns for charts.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, RawQuery},
};
use serde::Serialize;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::host_id;
use crate::{
    series::{self, Thinned},
    web::{context::Ctx, error::WebError},
};

/// Metrics in one request for series.
const MAX_METRICS: usize = 32;
/// Points of each.
const MAX_POINTS: usize = 2_000;
const DEFAULT_POINTS: usize = 300;
/// Longest range: a quarter.
const MAX_RANGE: DurationMs = DurationMs::from_hours(24 * 92);

/// Columns for a chart: one array of instants, one array a metric and kind, gaps as null.
#[derive(Debug, Serialize)]
pub(super) struct Columns {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) at: Vec<i64>,
    pub(super) series: Vec<Column>,
}

#[derive(Debug, Serialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) mean: Vec<Option<f64>>,
    pub(super) min: Vec<Option<f64>>,
    pub(super) max: Vec<Option<f64>>,
}

#[derive(Debug, PartialEq)]
struct SeriesQuery {
    metrics: Vec<String>,
    from: UnixMillis,
    to: UnixMillis,
    points: usize,
}

/// `GET /hosts/{id}/series?metric=NAME&metric=NAME&from=MS&to=MS&points=N`
pub(super) async fn of_host(
    ctx: Ctx,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Columns>, WebError> {
    let id = host_id(&id)?;
    let query = series_query(query.as_deref().unwrap_or_default(), ctx.now)?;
    let request = series::Request {
        names: &query.metrics,
        from: query.from,
        to: query.to,
    };
    let read = series::thinned(&ctx.web.app, id, request, query.points).await?;
    Ok(Json(columns(&read, &query)))
}

fn series_query(query: &str, now: UnixMillis) -> Result<SeriesQuery, WebError> {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let number = |name: &str, default: i64| -> Result<i64, WebError> {
        let Some((_, text)) = pairs.iter().find(|(key, _)| key == name) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| WebError::Bad(format!("{name}: {text:?} is not a whole number")))
    };
    let to = UnixMillis(number("to", now.0)?);
    let from = UnixMillis(number("from", to.0.saturating_sub(3_600_000))?);
    let metrics: Vec<String> = pairs
        .iter()
        .filter(|(key, _)| key == "metric")
        .map(|(_, name)| name.to_string())
        .collect();
    if metrics.is_empty() || metrics.len() > MAX_METRICS {
        let text = format!("metric: give 1 to {MAX_METRICS} of them, each as metric=NAME");
        return Err(WebError::Bad(text));
    }
    if from >= to || to.0.saturating_sub(from.0) > MAX_RANGE.0 {
        let text = "from, to: milliseconds, from before to, at most 92 days apart";
        return Err(WebError::Bad(text.to_owned()));
    }
    let points = number("points", DEFAULT_POINTS as i64)?;
    let points = usize::try_from(points)
        .ok()
        .filter(|n| (1..=MAX_POINTS).contains(n));
    let points = points.ok_or_else(|| WebError::Bad(format!("points: from 1 to {MAX_POINTS}")))?;
    Ok(SeriesQuery {
        metrics,
        from,
        to,
        points,
    })
}

/// Arranges the metrics' thinned points in columns. They come from the same frames, so points
/// of one part of the range have the same time.
fn columns(all: &[Thinned], query: &SeriesQuery) -> Columns {
    let whole = query.to.0 - query.from.0;
    let part = |at: UnixMillis| (at.0 - query.from.0) * query.points as i64 / whole.max(1);
    let mut at: BTreeMap<i64, i64> = BTreeMap::new();
    let mut found: Vec<BTreeMap<i64, [f64; 3]>> = Vec::with_capacity(all.len());
    for one in all {
        let mut parts = BTreeMap::new();
        for bucket in &one.buckets {
            let key = part(bucket.at);
            at.entry(key)
                .and_modify(|first| *first = bucket.at.0.min(*first))
                .or_insert(bucket.at.0);
            if let Some(range) = bucket.range {
                parts.insert(key, [range.mean, range.min, range.max]);
            }
        }
        found.push(parts);
    }
    let column = |parts: &BTreeMap<i64, [f64; 3]>, i: usize| {
        at.keys()
            .map(|key| parts.get(key).map(|range| rounded(range[i])))
            .collect()
    };
    Columns {
        from: query.from.0,
        to: query.to.0,
        series: all
            .iter()
            .zip(&found)
            .map(|(one, parts)| Column {
                name: one.name.clone(),
                mean: column(parts, 0),
                min: column(parts, 1),
                max: column(parts, 2),
            })
            .collect(),
        at: at.into_values().collect(),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use watchkeep_core::series::{Point, downsample};

    use super::*;

    #[test]
    fn a_query_for_series_is_checked_field_by_field() {
        let now = UnixMillis(10_000_000_000);
        let good = series_query(
            "metric=cpu.busy_pct&metric=disk.used_pct%3A%2Fvar&points=10",
            now,
        );
        let good = good.unwrap();
        assert_eq!(good.metrics, ["cpu.busy_pct", "disk.used_pct:/var"]);
        assert_eq!(good.from, now - DurationMs::from_hours(1));
        for (query, field) in [
            ("", "metric"),
            ("metric=a&points=0", "points"),
            ("metric=a&points=9999", "points"),
            ("metric=a&from=x", "from"),
            ("metric=a&from=5&to=5", "from, to"),
            (
                "metric=a&from=-9000000000000000000&to=9000000000000000000",
                "from, to",
            ),
        ] {
            let error = series_query(query, now).unwrap_err().to_string();
            assert!(error.starts_with(field), "{query}: {error}");
        }
    }

    #[test]
    fn columns_stand_beside_each_other_and_gaps_are_null() {
        let at = |i: i64| UnixMillis(i * 1_000);
        let thinned = |name: &str, value: f64, seconds: &[i64]| {
            let points = seconds.iter().map(|i| Point { at: at(*i), value });
            let points: Vec<Point> = points.collect();
            Thinned {
                name: name.to_owned(),
                buckets: downsample(&points, at(0), at(100), 10),
            }
        };
        let all: Vec<i64> = (0..100).collect();
        let broken: Vec<i64> = (0..30).chain(60..100).collect();
        let all = [thinned("a", 1.0, &all), thinned("b", 2.0, &broken)];
        let query = SeriesQuery {
            metrics: vec![],
            from: at(0),
            to: at(100),
            points: 10,
        };
        let columns = columns(&all, &query);
        assert_eq!(columns.at.len(), 10);
        assert_eq!(columns.series[0].mean, vec![Some(1.0); 10]);
        assert!(columns.series[1].mean.contains(&None));
        assert_eq!(columns.series[1].mean.iter().flatten().count(), 7);
    }
}
