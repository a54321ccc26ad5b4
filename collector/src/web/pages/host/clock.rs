//! What the machine itself reports about its clock, in words.

use watchkeep_core::wording;

use crate::live::HostNow;

/// As in `synchronised, 12 ms ahead`; a dash where nothing is known.
pub(super) fn words(now: &HostNow) -> String {
    let synchronised = now.value("clock.synchronised").map(|value| value > 0.5);
    describe(synchronised, now.value("clock.offset_ms"))
}

fn describe(synchronised: Option<bool>, offset_ms: Option<f64>) -> String {
    let state = match synchronised {
        None => return "–".to_owned(),
        Some(true) => "synchronised",
        Some(false) => "not synchronised",
    };
    match offset_ms {
        None => state.to_owned(),
        Some(offset_ms) if offset_ms.abs() < 1.0 => format!("{state}, within 1 ms"),
        Some(offset_ms) => {
            let side = if offset_ms > 0.0 { "ahead" } else { "behind" };
            let size = wording::value("clock.offset_ms", offset_ms.abs());
            format!("{state}, {size} {side}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_told_in_words() {
        assert_eq!(describe(None, None), "–");
        assert_eq!(describe(Some(false), None), "not synchronised");
        assert_eq!(describe(Some(true), None), "synchronised");
        assert_eq!(
            describe(Some(true), Some(-0.4)),
            "synchronised, within 1 ms"
        );
        assert_eq!(
            describe(Some(true), Some(12.3)),
            "synchronised, 12 ms ahead"
        );
        let behind = "synchronised, 2.5 s behind";
        assert_eq!(describe(Some(true), Some(-2_500.0)), behind);
    }
}
