//! One cycle's names and values, in the order in which they are written.

use watchkeep_shared::metric::round_to_hundredth;

/// Collects names and values, and knows how long ago the last cycle was.
pub(super) struct Writer {
    /// Names joined by newlines.
    pub(super) joined: String,
    pub(super) values: Vec<Option<f64>>,
    /// Seconds since the cycle before; `None` in the first one, which has no rates.
    pub(super) elapsed_s: Option<f64>,
    /// Where files are read into.
    pub(super) buffer: Vec<u8>,
}

impl Writer {
    /// A value that the machine has once.
    pub(super) fn put(&mut self, name: &str, value: Option<f64>) {
        self.start();
        self.joined.push_str(name);
        self.value(value);
    }

    /// A value of a family that exists once per `instance`.
    pub(super) fn put_of(&mut self, family: &str, instance: &str, value: Option<f64>) {
        self.start();
        self.joined.push_str(family);
        self.joined.push(':');
        self.joined.push_str(instance);
        self.value(value);
    }

    /// Change per second; `None` without a reading before, and after a counter's reset.
    pub(super) fn rate(&self, now: u64, before: Option<u64>) -> Option<f64> {
        let change = now.checked_sub(before?)?;
        self.elapsed_s.map(|seconds| change as f64 / seconds)
    }

    fn start(&mut self) {
        if !self.values.is_empty() {
            self.joined.push('\n');
        }
    }

    fn value(&mut self, value: Option<f64>) {
        self.values
            .push(value.filter(|v| v.is_finite()).map(round_to_hundredth));
    }
}

/// `part` of `whole` in percent; 0 of nothing.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        (part / whole * 100.0).clamp(0.0, 100.0)
    } else {
        0.0
    }
}

/// The first value with the name `name` in a list of few.
pub(super) fn find<T: Copy>(list: &[(String, T)], name: &str) -> Option<T> {
    list.iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| *value)
}
