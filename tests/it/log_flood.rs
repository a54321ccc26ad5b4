//! A log that grows by thousands of lines a second and is rotated meanwhile: every line counts once.

use anyhow::Result;
use watchkeep_tests::{
    both_stores,
    flood::{Flood, flood},
    harness::DatabaseKind,
};

/// Far above what an agent needs, and far below what fits beside a log; not a limit of speed.
const MOST_RSS_BYTES: u64 = 64 << 20;

both_stores!(every_line_of_a_flooded_log_counts_once);

async fn every_line_of_a_flooded_log_counts_once(kind: DatabaseKind) -> Result<()> {
    let asked = Flood {
        rate: 20_000,
        seconds: 4,
        rotate_s: 1,
    };
    let outcome = flood(kind, asked).await?;
    assert_eq!(outcome.written, 80_000);
    assert_eq!(outcome.counted, outcome.matching, "{outcome:?}");
    assert_eq!(outcome.gaps, 0, "{outcome:?}");
    assert!(outcome.peak_rss_bytes < MOST_RSS_BYTES, "{outcome:?}");
    Ok(())
}
