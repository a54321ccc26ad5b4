//! Services of Windows, asked of the service manager each second: it reports changes only by a call
//! into the asking thread, which takes unsafe code.
//!
//! A service is opened for each look and closed at once: one that someone holds open can't be deleted,
//! and an upgrade of it would fail because it is watched. While the manager does not answer, services
//! are unknown. Elsewhere than on Windows they always are.

mod tracked;

use std::{collections::BTreeMap, io, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;

use self::tracked::Tracked;
use super::{Finding, Found, ProbeResult, unknown};
use crate::{
    clock,
    platform::{self, ServiceReport},
};

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);
/// The manager answers within this, or is said not to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What to look at.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchedServices {
    pub(super) generation: u64,
    /// Short names.
    pub(super) names: Vec<String>,
}

/// Looks at services until it is stopped.
pub(super) struct Watch {
    pub(super) wanted: watch::Receiver<WatchedServices>,
    pub(super) results: mpsc::Sender<ProbeResult>,
    pub(super) stop: CancellationToken,
}

type Reports = Vec<io::Result<Option<ServiceReport>>>;

impl Watch {
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&mut self) {
        let mut tracked: BTreeMap<String, Tracked> = BTreeMap::new();
        let mut reported: Option<(u64, Vec<(String, Finding)>)> = None;
        loop {
            let WatchedServices { generation, names } = self.wanted.borrow_and_update().clone();
            tracked.retain(|name, _| names.contains(name));
            if !names.is_empty() {
                let reports = self.look(&names).await;
                let now_ms = clock::now().mono_ms;
                let findings: Vec<(String, Finding)> = names
                    .iter()
                    .zip(reports)
                    .map(|(name, report)| {
                        let service = tracked.entry(name.clone()).or_default();
                        (format!("winsvc:{name}"), service.take(report, now_ms))
                    })
                    .collect();
                let news = (generation, findings);
                if reported.as_ref() != Some(&news) {
                    self.tell(generation, news.1.clone()).await;
                    reported = Some(news);
                }
            }
            let pause = async {
                if names.is_empty() {
                    std::future::pending::<()>().await;
                }
                time::sleep(POLL).await;
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = pause => {}
            }
        }
    }

    /// Asks the manager beside the loop, which must not wait for it.
    async fn look(&self, names: &[String]) -> Reports {
        let asked = names.to_vec();
        let mut looking: JoinHandle<Reports> = tokio::task::spawn_blocking(move || {
            asked
                .iter()
                .map(|name| platform::service_report(name))
                .collect()
        });
        if let Ok(answer) = time::timeout(ANSWER, &mut looking).await {
            return answer.unwrap_or_default();
        }
        let generation = self.wanted.borrow().generation;
        let silent = || unknown("the service manager does not answer".to_owned());
        let findings = names
            .iter()
            .map(|name| (format!("winsvc:{name}"), silent()));
        self.tell(generation, findings.collect()).await;
        // Asking again would only add to those who wait.
        looking.await.unwrap_or_default()
    }

    async fn tell(&self, generation: u64, findings: Vec<(String, Finding)>) {
        let result = ProbeResult {
            generation,
            found: Found::Several(findings),
        };
        // The loop is gone only when all ends.
        let _ = self.results.send(result).await;
    }
}
