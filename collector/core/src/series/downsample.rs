//! Thinning a series out for a chart.

use watchkeep_shared::UnixMillis;

use super::Point;

/// What a chart shows at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The time of its first value; for a gap, a time within it.
    pub at: UnixMillis,
    /// Its values; `None` marks a gap, across which no line is to be drawn.
    pub range: Option<Range>,
}

/// The values of one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The smallest.
    pub min: f64,
    /// The mean of all, not weighted by time.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

/// How many usual steps may lie between two values before it is a gap.
const GAP_STEPS: i64 = 3;

/// Divides `[from, to)` into `buckets` equal parts and sums up the points (by time, ascending) of
/// each. Parts without points give nothing, so at most `buckets` ranges come back; a distance of
/// more than three usual (median) steps that is also wider than a part is marked by a gap.
pub fn downsample(
    points: &[Point],
    from: UnixMillis,
    to: UnixMillis,
    buckets: usize,
) -> Vec<Bucket> {
    let start = points.partition_point(|point| point.at < from);
    let end = points.partition_point(|point| point.at < to);
    let (Some(points), 1..) = (points.get(start..end), buckets) else {
        return Vec::new();
    };
    let whole = i128::from(to.0) - i128::from(from.0);
    let part = |at: UnixMillis| (i128::from(at.0) - i128::from(from.0)) * buckets as i128 / whole;
    let width = i64::try_from(whole / buckets as i128).unwrap_or(i64::MAX);
    let gap = median_step(points).saturating_mul(GAP_STEPS).max(width);
    let mut out: Vec<Bucket> = Vec::new();
    let mut last: Option<UnixMillis> = None;
    for group in points.chunk_by(|a, b| part(a.at) == part(b.at)) {
        let at = group[0].at;
        if let Some(last) = last.filter(|last| at.0.saturating_sub(last.0) > gap) {
            let within = UnixMillis(last.0 + (at.0 - last.0) / 2);
            out.push(Bucket {
                at: within,
                range: None,
            });
        }
        out.push(Bucket {
            at,
            range: Some(range(group)),
        });
        last = group.last().map(|point| point.at);
    }
    out
}

fn range(group: &[Point]) -> Range {
    let mut range = Range {
        min: f64::INFINITY,
        mean: 0.0,
        max: f64::NEG_INFINITY,
    };
    for (i, point) in group.iter().enumerate() {
        range.min = range.min.min(point.value);
        range.max = range.max.max(point.value);
        range.mean += (point.value - range.mean) / (i + 1) as f64;
    }
    range.mean = range.mean.clamp(range.min, range.max);
    range
}

/// The median distance between neighbours, milliseconds; 0 for fewer than two points.
fn median_step(points: &[Point]) -> i64 {
    let mut steps: Vec<i64> = points
        .windows(2)
        .map(|pair| pair[1].at.0.saturating_sub(pair[0].at.0))
        .collect();
    if steps.is_empty() {
        return 0;
    }
    let middle = steps.len() / 2;
    *steps.select_nth_unstable(middle).1
}
