//! The end-to-end tests' ground: real programs in private directories on private ports, a private
//! database for each test, a proxy that cuts the line, and waiting with a deadline.
//!
//! Everything that is started ends with its handle. When a test fails, the handles of its programs
//! print the end of what those wrote.

pub mod agent;
pub mod binaries;
pub mod burn;
pub mod collector;
pub mod database;
pub mod disk;
pub mod machine;
pub mod played;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod scripted;
pub mod settings;
pub mod wait;

pub use agent::Agent;
pub use collector::Collector;
pub use database::{Database, DatabaseKind};
pub use disk::Disk;
pub use machine::Machine;
pub use played::PlayedClock;
pub use postgres::PostgresServer;
pub use proxy::Proxy;
pub use scripted::Scripted;
pub use settings::Settings;
pub use wait::wait_for;

/// Makes two tests, `sqlite::NAME` and `postgres::NAME`, of each `async fn NAME(DatabaseKind) ->
/// anyhow::Result<()>` in scope.
#[macro_export]
macro_rules! both_stores {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() -> anyhow::Result<()> {
                    super::$name($crate::harness::DatabaseKind::Sqlite).await
                }
            )+
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() -> anyhow::Result<()> {
                    super::$name($crate::harness::DatabaseKind::Postgres).await
                }
            )+
        }
    };
}
