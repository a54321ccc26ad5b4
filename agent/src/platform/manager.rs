//! What the service manager of Windows says of a service, in a form that every system can write down
//! and test.

/// A service of Windows as its manager sees it (`SERVICE_STATUS_PROCESS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceReport {
    /// What it does.
    pub run: ServiceRun,
    /// Whether an administrator has disabled it; only looked up while it is stopped.
    pub disabled: bool,
    /// Why it ended, or did not start.
    pub exit: ServiceExit,
    /// Its process; services may share one.
    pub pid: Option<u32>,
    /// Grows while a long start or stop gets on.
    pub checkpoint: u32,
}

/// What a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceRun {
    /// It does not run.
    Stopped,
    /// It starts, or continues after a pause.
    Starting,
    /// It stops, or pauses.
    Stopping,
    /// It runs.
    Running,
    /// It runs and does nothing.
    Paused,
}

/// Why a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceExit {
    /// An error of Windows; 0 is none.
    System(u32),
    /// A number of the service's own.
    Own(u32),
}
