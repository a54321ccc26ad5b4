//! Thinning a series out for a chart.

use std::collections::BTreeMap;

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
/// Distances between values that are kept to find the usual one.
const MAX_STEPS: usize = 4_096;

/// Divides `[from, to)` into equal parts and sums up the points of each as they come, so that memory
/// does not grow with the points.
#[derive(Clone, Debug)]
pub struct Downsampler {
    from: UnixMillis,
    to: UnixMillis,
    buckets: usize,
    parts: BTreeMap<i128, Part>,
    last: Option<UnixMillis>,
    steps: Steps,
}

/// The points of one part.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: UnixMillis,
    last: UnixMillis,
    count: u32,
    range: Range,
}

/// A sample of distances, milliseconds: each of `every`.
#[derive(Clone, Debug)]
struct Steps {
    kept: Vec<i64>,
    every: usize,
    seen: usize,
}

impl Downsampler {
    /// Sums up points of `[from, to)` in `buckets` parts.
    pub const fn new(from: UnixMillis, to: UnixMillis, buckets: usize) -> Self {
        Self {
            from,
            to,
            buckets,
            parts: BTreeMap::new(),
            last: None,
            steps: Steps {
                kept: Vec::new(),
                every: 1,
                seen: 0,
            },
        }
    }

    /// Takes a point; one outside of the window is left out. Points come by time, or in runs that do.
    pub fn push(&mut self, point: Point) {
        let Point { at, value } = point;
        if at < self.from || at >= self.to || self.buckets == 0 {
            return;
        }
        if let Some(last) = self.last.filter(|last| *last < at) {
            self.steps.push(at.since(last).0);
        }
        self.last = Some(at);
        let since = i128::from(at.0) - i128::from(self.from.0);
        let part = since * self.buckets as i128 / self.whole();
        self.parts
            .entry(part)
            .or_insert(Part {
                first: at,
                last: at,
                count: 0,
                range: Range {
                    min: f64::INFINITY,
                    mean: 0.0,
                    max: f64::NEG_INFINITY,
                },
            })
            .add(at, value);
    }

    /// One range for each part that has points; a distance of more than three usual (median) steps
    /// that is also wider than a part is marked by a gap.
    pub fn finish(mut self) -> Vec<Bucket> {
        if self.parts.is_empty() {
            return Vec::new();
        }
        let width = i64::try_from(self.whole() / self.buckets as i128).unwrap_or(i64::MAX);
        let gap = self.steps.median().saturating_mul(GAP_STEPS).max(width);
        let mut out: Vec<Bucket> = Vec::with_capacity(self.parts.len());
        let mut last: Option<UnixMillis> = None;
        for part in self.parts.into_values() {
            if let Some(last) = last.filter(|last| part.first.0.saturating_sub(last.0) > gap) {
                let within = UnixMillis(last.0 + (part.first.0 - last.0) / 2);
                out.push(Bucket {
                    at: within,
                    range: None,
                });
            }
            let mut range = part.range;
            range.mean = range.mean.clamp(range.min, range.max);
            out.push(Bucket {
                at: part.first,
                range: Some(range),
            });
            last = Some(part.last);
        }
        out
    }

    fn whole(&self) -> i128 {
        (i128::from(self.to.0) - i128::from(self.from.0)).max(1)
    }
}

impl Part {
    fn add(&mut self, at: UnixMillis, value: f64) {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        self.count = self.count.saturating_add(1);
        self.range.min = self.range.min.min(value);
        self.range.max = self.range.max.max(value);
        self.range.mean += (value - self.range.mean) / f64::from(self.count);
    }
}

impl Steps {
    fn push(&mut self, step: i64) {
        if self.seen.is_multiple_of(self.every) {
            if self.kept.len() == MAX_STEPS {
                let mut at = 0;
                self.kept.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.every *= 2;
            }
            self.kept.push(step);
        }
        self.seen += 1;
    }

    /// The median distance, 0 if there is none.
    fn median(&mut self) -> i64 {
        if self.kept.is_empty() {
            return 0;
        }
        let middle = self.kept.len() / 2;
        *self.kept.select_nth_unstable(middle).1
    }
}

/// The same for points that are there already, by time.
pub fn downsample(
    points: &[Point],
    from: UnixMillis,
    to: UnixMillis,
    buckets: usize,
) -> Vec<Bucket> {
    let mut sampler = Downsampler::new(from, to, buckets);
    for point in points {
        sampler.push(*point);
    }
    sampler.finish()
}
