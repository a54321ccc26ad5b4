//! Every limit of the protocol, with its unit in the name.

/// Largest request body as it arrives, bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Largest heartbeat body after decompression, bytes.
pub const MAX_DECODED_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Most frames in one batch.
pub const MAX_FRAMES_PER_BATCH: usize = 128;
/// Most metric values in one frame.
pub const MAX_VALUES_PER_FRAME: usize = 1_024;
/// Longest metric name, bytes.
pub const MAX_METRIC_NAME_BYTES: usize = 160;
/// Most schemas introduced in one batch.
pub const MAX_SCHEMAS_PER_BATCH: usize = 8;
/// Most CAs that an agent trusts at once.
pub const MAX_TRUSTED_CAS: usize = 4;
/// Most services in one snapshot.
pub const MAX_SERVICES_PER_FRAME: usize = 256;
/// Most events in one frame.
pub const MAX_EVENTS_PER_FRAME: usize = 128;
/// Most sample lines in one log match event.
pub const MAX_LINES_PER_LOG_MATCH: usize = 10;
/// Most proposals in one `discovered` event.
pub const MAX_PROPOSALS: usize = 200;
/// Most refused policy items that an agent reports.
pub const MAX_REFUSED: usize = 256;
/// Most problems that an agent reports about itself.
pub const MAX_TROUBLES: usize = 16;
/// Most processes in each list of a `processes` event.
pub const MAX_PROCESSES_LISTED: usize = 5;
/// Most things that an agent says it can't see.
pub const MAX_UNSEEN: usize = 16;
/// Most addresses that an agent reports of its machine.
pub const MAX_ADDRESSES: usize = 16;
/// Longest text field (a log line, a path, a detail), bytes.
pub const MAX_TEXT_BYTES: usize = 2_048;
/// Shortest heartbeat interval a policy may ask for, milliseconds.
pub const MIN_INTERVAL_MS: u32 = 200;
/// Longest heartbeat interval a policy may ask for, milliseconds.
pub const MAX_INTERVAL_MS: u32 = 600_000;
/// Heartbeat interval of the default policy, milliseconds.
pub const DEFAULT_INTERVAL_MS: u32 = 10_000;
/// How far a frame's boot-time clock may lie after the batch's own `sent` reading, milliseconds.
pub const MAX_FRAME_AHEAD_MS: i64 = 1_000;
/// Oldest frame that is still taken, milliseconds before its arrival (8 days; the agent's spool
/// keeps 7).
pub const MAX_FRAME_AGE_MS: i64 = 8 * 24 * 3_600_000;
