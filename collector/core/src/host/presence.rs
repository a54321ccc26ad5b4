//! Whether a service that does not exist on a machine is a fault there.
//!
//! A policy for many hosts names what most of them have. Where a unit or file of it was never seen,
//! that is no fault: it is not here. Where it was seen and is gone, or was asked for on this very host, it is.

use std::collections::BTreeSet;

use watchkeep_shared::wire::{
    heartbeat::{Service, ServiceStatus},
    limits::MAX_SERVICES_PER_FRAME,
};

use super::HostState;

/// Most services that are remembered as seen; of more, only those that are watched now.
const MAX_PRESENT: usize = 4 * MAX_SERVICES_PER_FRAME;

impl HostState {
    /// Whether a service does not exist on this host and never did, as far as is known. `is_own`: the
    /// host's own policy asks for it, so someone expects it here.
    pub fn is_not_here(&self, service: &Service, is_own: bool) -> bool {
        service.status == ServiceStatus::NotFound && !is_own && !self.present.contains(&service.key)
    }

    /// Remembers which of the newest services exist.
    pub(super) fn note_present(&mut self) {
        let exists = |service: &&Service| {
            !matches!(
                service.status,
                ServiceStatus::NotFound | ServiceStatus::Unknown
            )
        };
        let here = self.services.iter().filter(exists);
        let new: Vec<String> = here
            .filter(|service| !self.present.contains(&service.key))
            .map(|service| service.key.clone())
            .collect();
        self.present.extend(new);
        if self.present.len() > MAX_PRESENT {
            let watched: BTreeSet<&str> =
                self.services.iter().map(|one| one.key.as_str()).collect();
            self.present.retain(|key| watched.contains(key.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &mut HostState, services: &[(&str, ServiceStatus)]) {
        state.services = services
            .iter()
            .map(|(key, status)| service(key, *status))
            .collect();
        state.note_present();
    }

    fn service(key: &str, status: ServiceStatus) -> Service {
        Service {
            key: key.to_owned(),
            status,
            detail: None,
        }
    }

    #[test]
    fn a_unit_that_was_never_there_is_not_here_and_one_that_vanished_is_a_fault() {
        use ServiceStatus::{Failed, NotFound, Running, Unknown};
        let mut state = HostState::default();
        let gone = |key: &str| service(key, NotFound);
        seen(
            &mut state,
            &[
                ("a", NotFound),
                ("b", Running),
                ("c", Failed),
                ("d", Unknown),
            ],
        );
        assert!(state.is_not_here(&gone("a"), false));
        assert!(!state.is_not_here(&gone("a"), true), "the host's own");
        assert!(!state.is_not_here(&gone("b"), false), "it ran here");
        assert!(!state.is_not_here(&gone("c"), false), "it was here");
        assert!(
            state.is_not_here(&gone("d"), false),
            "nothing is known of it"
        );
        assert!(
            !state.is_not_here(&service("a", Failed), false),
            "it exists"
        );
        // What was seen once is remembered, also while it is not listed.
        seen(&mut state, &[]);
        seen(&mut state, &[("b", NotFound)]);
        assert!(!state.is_not_here(&gone("b"), false));
        let written = serde_json::to_string(&state).unwrap();
        let read: HostState = serde_json::from_str(&written).unwrap();
        assert!(!read.is_not_here(&gone("b"), false), "over a restart too");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut state = HostState::default();
        for i in 0..2 * MAX_PRESENT {
            seen(&mut state, &[(&format!("s{i}"), ServiceStatus::Running)]);
            assert!(state.present.len() <= MAX_PRESENT);
        }
        let last = format!("s{}", 2 * MAX_PRESENT - 1);
        assert!(!state.is_not_here(&service(&last, ServiceStatus::NotFound), false));
    }
}
