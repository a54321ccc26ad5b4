//! A real bus for tests.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{BUS, BUS_PATH, Bus, BusError, Call};

const DEADLINE: Duration = Duration::from_secs(30);
/// `DBUS_REQUEST_NAME_REPLY_IN_QUEUE`: someone else has the name.
const IN_QUEUE: i64 = 2;

/// `dbus-daemon`; ended with this.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Listens at `socket`. It starts services by the files in `dbus-1/services` beside that.
    pub async fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let child = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile"])
            .arg(format!("--address=unix:path={}", socket.display()))
            .env("XDG_DATA_HOME", socket.parent().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed");
        let daemon = Self(child);
        let there = async {
            while Bus::connect(socket).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, there).await.unwrap();
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes a name, under which others call this connection; waits until nobody else has it.
pub async fn own(bus: &mut Bus, name: &str) -> Result<(), BusError> {
    let call = Call::method(BUS, BUS_PATH, BUS, "RequestName")
        .with_text(name)
        .with("u", |body| body.number(0));
    while bus.call(&call).await?.into_result()?[0].number() == Some(IN_QUEUE) {
        tokio::task::yield_now().await;
    }
    Ok(())
}
