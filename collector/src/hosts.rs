//! What people change about a host: its name, its address, their notes.

use watchkeep_core::text::{clean_lines, is_safe};
use watchkeep_shared::HostId;

use crate::{
    app::App,
    live::Hint,
    store::{
        StoreError,
        descriptions::{self, Description},
        people::Act,
    },
};

/// Longest name, bytes: as long as a host name may be.
pub const MAX_NAME_BYTES: usize = 253;
/// Longest address, bytes.
pub const MAX_ADDRESS_BYTES: usize = 500;
/// Longest notes, bytes.
pub const MAX_NOTES_BYTES: usize = 8_000;

/// Why a host was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// No such host, or it was retired.
    #[error("there is no such host, or it was retired")]
    NotFound,
    /// A text can't be used.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change of what people say of a host; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Its name.
    pub name: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Notes on it.
    pub notes: Option<String>,
}

/// Changes what people say of a host. New tickets and messages have the new name within a second;
/// titles of older tickets stay.
///
/// # Errors
///
/// If there is no such host, a text can't be used, or the store fails.
pub async fn describe(
    app: &App,
    host: HostId,
    change: Change,
    by: &str,
) -> Result<Description, DescribeError> {
    let before = descriptions::of(&app.store, host).await?;
    let before = before.ok_or(DescribeError::NotFound)?;
    let after = changed(&before, change).map_err(DescribeError::Invalid)?;
    if after == before {
        return Ok(after);
    }
    let mut tx = app.store.begin().await?;
    if !descriptions::put(&mut tx, host, &after).await? {
        return Err(DescribeError::NotFound);
    }
    let detail = if after.name == before.name {
        after.name.clone()
    } else {
        format!("{} was {}", after.name, before.name)
    };
    let act = Act {
        by,
        action: "host_describe",
        subject: &format!("host {host}"),
        detail: &detail,
    };
    app.audit(&mut tx, act).await?;
    tx.commit().await?;
    app.live.hint(Hint::Host(host));
    Ok(after)
}

fn changed(before: &Description, change: Change) -> Result<Description, String> {
    let line = |new: Option<String>, old: &str| new.as_deref().unwrap_or(old).trim().to_owned();
    let mut notes = line(change.notes, &before.notes);
    let after = Description {
        name: line(change.name, &before.name),
        reported_name: before.reported_name.clone(),
        address: line(change.address, &before.address),
        notes: String::new(),
    };
    if after.name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if notes.len() > MAX_NOTES_BYTES {
        return Err(format!("the notes are longer than {MAX_NOTES_BYTES} bytes"));
    }
    clean_lines(&mut notes, MAX_NOTES_BYTES);
    for (what, text, max) in [
        ("name", &after.name, MAX_NAME_BYTES),
        ("address", &after.address, MAX_ADDRESS_BYTES),
    ] {
        if text.len() > max {
            return Err(format!("the {what} is longer than {max} bytes"));
        }
        if !is_safe(text) {
            return Err(format!(
                "the {what} has a control character or a line break; remove it"
            ));
        }
    }
    Ok(Description { notes, ..after })
}
