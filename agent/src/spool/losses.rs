//! Frames that were lost, counted until a frame reports them, and what frames weigh.

use watchkeep_shared::wire::heartbeat::{Event, Frame, SpoolLossReason};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) full: u64,
    pub(super) damaged: u64,
    pub(super) write_failed: u64,
}

impl Losses {
    /// The events that report them; none is reported twice.
    pub(super) fn take(&mut self) -> Vec<Event> {
        let taken = std::mem::take(self);
        [
            (taken.full, SpoolLossReason::Full),
            (taken.damaged, SpoolLossReason::Damaged),
            (taken.write_failed, SpoolLossReason::WriteFailed),
        ]
        .into_iter()
        .filter(|(frames, _)| *frames > 0)
        .map(|(frames, reason)| Event::SpoolLoss { frames, reason })
        .collect()
    }
}

/// Lost frames that a frame's events report.
pub(super) fn carried(frame: &Frame) -> u32 {
    frame
        .events
        .iter()
        .map(|event| match event {
            Event::SpoolLoss { frames, .. } => u32::try_from(*frames).unwrap_or(u32::MAX),
            _ => 0,
        })
        .fold(0, u32::saturating_add)
}

/// About how much JSON a frame becomes.
pub(super) fn estimated_bytes(frame: &Frame) -> usize {
    let texts: usize = frame
        .events
        .iter()
        .map(|event| match event {
            Event::LogMatch { lines, path, .. } => {
                100 + path.len() + lines.iter().map(String::len).sum::<usize>()
            }
            _ => 100,
        })
        .sum();
    let services = frame.services.as_ref().map_or(0, |list| list.len() * 100);
    200 + frame.values.len() * 10 + services + texts
}
