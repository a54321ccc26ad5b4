//! Waiting for something to become true, with a deadline that fails the test.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

/// How often the condition is looked at.
const POLL: Duration = Duration::from_millis(25);

/// Looks every so often until `probe` yields a value. Its errors are normal until the deadline (a
/// program that is not up yet).
///
/// # Panics
///
/// At the deadline, with `what` and the last error.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        let last = match probe().await {
            Ok(Some(value)) => return value,
            Ok(None) => "it is not so".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        assert!(
            Instant::now() < end,
            "waited {deadline:?} for this: {what}; at last: {last}"
        );
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_value_is_returned_once_there_is_one() {
        let mut looks = 0;
        let value = wait_for("three looks", Duration::from_secs(5), async || {
            looks += 1;
            anyhow::ensure!(looks > 1, "not yet");
            Ok((looks == 3).then_some("there"))
        });
        assert_eq!(value.await, "there");
    }

    #[tokio::test]
    #[should_panic(expected = "waited 50ms for this: a miracle; at last: no miracle")]
    async fn the_deadline_fails_with_the_last_error() {
        let never = async || -> Result<Option<()>> { anyhow::bail!("no miracle") };
        wait_for("a miracle", Duration::from_millis(50), never).await;
    }
}
