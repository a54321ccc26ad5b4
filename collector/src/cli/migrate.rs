//! `migrate`: brings the store to this program's version, as `serve` does when it starts.

use super::say;
use crate::{
    boot,
    config::Config,
    store::{BeforeMigration, SCHEMA_VERSION},
};

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// Make no copy of a SQLite store before: there is a backup.
    #[arg(long)]
    no_copy: bool,
}

pub(super) async fn run(config: Config, args: Args) -> anyhow::Result<()> {
    let before = if args.no_copy {
        BeforeMigration::NoCopy
    } else {
        BeforeMigration::Copy
    };
    match boot::migrate(config, before).await? {
        None => say(&format!("The store has version {SCHEMA_VERSION} already.")),
        Some(done) => {
            if let Some(copy) = &done.copy {
                say(&format!(
                    "The store as it was is in {}; delete it when the new version works.",
                    copy.display()
                ))?;
            }
            say(&format!(
                "The store was migrated from version {} to {SCHEMA_VERSION}.",
                done.from
            ))
        }
    }
}
