//! The Event Log: what is in a channel, and what comes (`wevtapi.dll`).
//!
//! Records come as XML, with the provider's own message in it where there is one. Nothing waits: a
//! subscription is asked again and again, and answers at once.

#![expect(unsafe_code, reason = "no safe crate reads the Event Log")]

use std::{
    collections::HashMap,
    io,
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
    ptr::{null, null_mut},
};

use windows_sys::Win32::{
    Foundation::{
        ERROR_EVT_QUERY_RESULT_STALE, ERROR_INSUFFICIENT_BUFFER, ERROR_INVALID_OPERATION,
        ERROR_NO_MORE_ITEMS, ERROR_TIMEOUT,
    },
    System::{
        EventLog::{
            EVT_HANDLE, EvtClose, EvtCreateBookmark, EvtFormatMessage, EvtFormatMessageXml,
            EvtNext, EvtOpenPublisherMetadata, EvtQuery, EvtQueryChannelPath,
            EvtQueryReverseDirection, EvtRender, EvtRenderBookmark, EvtRenderEventXml,
            EvtSubscribe, EvtSubscribeStartAfterBookmark, EvtSubscribeStartAtOldestRecord,
            EvtSubscribeStrict, EvtUpdateBookmark,
        },
        Rpc::RPC_S_INVALID_BOUND,
        Threading::CreateEventW,
    },
};

use crate::{last_error, wide};

/// Records that one look takes at most.
const BATCH: usize = 64;
/// How long a look may take, milliseconds; one that finds nothing answers at once.
const TIMEOUT_MS: u32 = 2_000;
/// Longest text of one record, UTF-16 units. Windows takes records of up to 64 KiB.
const MAX_UNITS: usize = 1 << 18;
/// Every record.
const ALL: &str = "*";

/// Why the log can't be read.
#[derive(Debug)]
pub enum LogError {
    /// Records that had not been read yet are gone: they were overwritten, or the log was cleared.
    Stale,
    /// Anything else.
    System(io::Error),
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        let stale = ERROR_EVT_QUERY_RESULT_STALE.cast_signed();
        if error.raw_os_error() == Some(stale) {
            Self::Stale
        } else {
            Self::System(error)
        }
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// It, as XML (the schema of Windows events).
    pub xml: String,
    /// Its place in the channel, as XML, for [`Subscription::open`].
    pub bookmark: String,
}

/// Something of the Event Log that is to be closed.
#[derive(Debug)]
struct Handle(EVT_HANDLE);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is open, and closed nowhere else. A failure changes nothing.
        unsafe { EvtClose(self.0) };
    }
}

impl Handle {
    fn new(handle: EVT_HANDLE) -> io::Result<Self> {
        if handle == 0 {
            return Err(last_error());
        }
        Ok(Self(handle))
    }

    /// A bookmark, new or as it was rendered.
    fn bookmark(xml: Option<&str>) -> io::Result<Self> {
        let xml = xml.map(wide);
        let text = xml.as_ref().map_or(null(), |xml| xml.as_ptr());
        // SAFETY: the text ends with a zero, or is null for a new bookmark.
        Self::new(unsafe { EvtCreateBookmark(text) })
    }

    /// What the provider of a record knows of its messages.
    fn publisher(name: &str) -> io::Result<Self> {
        let name = wide(name);
        // SAFETY: the name ends with a zero; the rest stands for this machine and the thread's
        // language.
        Self::new(unsafe { EvtOpenPublisherMetadata(0, name.as_ptr(), null(), 0, 0) })
    }

    /// The next records of a query or subscription, at most `most`; none: no more for now.
    fn next(&self, most: usize) -> io::Result<Vec<Self>> {
        let mut handles = [0_isize; BATCH];
        let most = most.min(BATCH);
        let mut returned = 0;
        // SAFETY: the array has room for at least `most` handles, and the count is ours to be written.
        let well = unsafe {
            EvtNext(
                self.0,
                most as u32,
                handles.as_mut_ptr(),
                TIMEOUT_MS,
                0,
                &raw mut returned,
            )
        };
        if well != 0 {
            let returned = (returned as usize).min(most);
            return Ok(handles[..returned].iter().map(|one| Self(*one)).collect());
        }
        let error = last_error();
        let code = error.raw_os_error().map_or(0, i32::cast_unsigned);
        // The third is how some versions say that there is nothing.
        let is_end = [ERROR_NO_MORE_ITEMS, ERROR_TIMEOUT, ERROR_INVALID_OPERATION].contains(&code);
        if is_end { Ok(Vec::new()) } else { Err(error) }
    }

    /// As XML: a record, or a bookmark.
    fn render(&self, form: u32) -> io::Result<String> {
        text(&mut |buffer: &mut [u16]| {
            let bytes = u32::try_from(size_of_val(buffer)).unwrap_or(u32::MAX);
            let (mut used, mut properties) = (0, 0);
            // SAFETY: the buffer has as many bytes as said, and the counts are ours to be written.
            let well = unsafe {
                EvtRender(
                    0,
                    self.0,
                    form,
                    bytes,
                    buffer.as_mut_ptr().cast(),
                    &raw mut used,
                    &raw mut properties,
                )
            };
            (well != 0, (used as usize).div_ceil(2))
        })
    }

    /// A record as XML with its provider's message in it.
    fn with_message(&self, publisher: &Self) -> io::Result<String> {
        text(&mut |buffer: &mut [u16]| {
            let units = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let mut used = 0;
            // SAFETY: the buffer has as many units as said, the count is ours to be written, and no
            // values are given.
            let well = unsafe {
                EvtFormatMessage(
                    publisher.0,
                    self.0,
                    0,
                    0,
                    null(),
                    EvtFormatMessageXml,
                    units,
                    buffer.as_mut_ptr(),
                    &raw mut used,
                )
            };
            (well != 0, used as usize)
        })
    }
}

/// A text that `fill` writes into a buffer, of which it tells whether it went well and how many units
/// there are, or would be.
fn text(fill: &mut dyn FnMut(&mut [u16]) -> (bool, usize)) -> io::Result<String> {
    let mut buffer = vec![0_u16; 4_096];
    loop {
        let (well, units) = fill(&mut buffer);
        if well {
            let written = &buffer[..units.min(buffer.len())];
            let end = written.iter().position(|unit| *unit == 0);
            return Ok(String::from_utf16_lossy(
                &written[..end.unwrap_or(written.len())],
            ));
        }
        let error = last_error();
        let too_small = error.raw_os_error() == Some(ERROR_INSUFFICIENT_BUFFER.cast_signed());
        if !too_small || units <= buffer.len() || units > MAX_UNITS {
            return Err(error);
        }
        buffer.resize(units, 0);
    }
}

/// The newest records of a channel that fit an XPath query, newest first, at most `most` (64).
pub fn newest(channel: &str, query: &str, most: usize) -> Result<Vec<Record>, LogError> {
    let (channel, query) = (wide(channel), wide(query));
    let flags = EvtQueryChannelPath | EvtQueryReverseDirection;
    // SAFETY: both texts end with a zero; the session is this machine's.
    let found = Handle::new(unsafe { EvtQuery(0, channel.as_ptr(), query.as_ptr(), flags) })?;
    let records = found.next(most)?;
    let mut publishers = HashMap::new();
    let read = |record: &Handle| {
        let bookmark = Handle::bookmark(None)?;
        read(record, &bookmark, &mut publishers)
    };
    Ok(records.iter().map(read).collect::<io::Result<_>>()?)
}

/// The newest record of a channel; `None` of an empty one.
pub fn last(channel: &str) -> Result<Option<Record>, LogError> {
    Ok(newest(channel, ALL, 1)?.pop())
}

/// Follows a channel.
#[derive(Debug)]
pub struct Subscription {
    handle: Handle,
    bookmark: Handle,
    batch: usize,
    /// Windows sets it when something comes. Nobody waits for it, but a subscription needs one.
    _signal: OwnedHandle,
}

impl Subscription {
    /// From behind the record at a bookmark on, or from the oldest one.
    ///
    /// # Errors
    ///
    /// [`LogError::Stale`] if the record at the bookmark is gone.
    pub fn open(channel: &str, after: Option<&str>) -> Result<Self, LogError> {
        // SAFETY: no attributes and no name; set by hand, and set at first.
        let signal = unsafe { CreateEventW(null(), 1, 1, null()) };
        if signal.is_null() {
            return Err(last_error().into());
        }
        // SAFETY: it was made just now, and nobody else closes it.
        let signal = unsafe { OwnedHandle::from_raw_handle(signal) };
        let bookmark = Handle::bookmark(after)?;
        let (channel, query) = (wide(channel), wide(ALL));
        let (place, flags) = match after {
            Some(_) => (
                bookmark.0,
                EvtSubscribeStartAfterBookmark | EvtSubscribeStrict,
            ),
            None => (0, EvtSubscribeStartAtOldestRecord),
        };
        // SAFETY: both texts end with a zero, signal and bookmark are open and outlive the
        // subscription, and there is no callback.
        let handle = unsafe {
            EvtSubscribe(
                0,
                signal.as_raw_handle(),
                channel.as_ptr(),
                query.as_ptr(),
                place,
                null_mut(),
                None,
                flags,
            )
        };
        Ok(Self {
            handle: Handle::new(handle)?,
            bookmark,
            batch: BATCH,
            _signal: signal,
        })
    }

    /// What came since the last call, oldest first; nothing: nothing yet. There may be more.
    ///
    /// # Errors
    ///
    /// After any error open it anew.
    pub fn next(&mut self) -> Result<Vec<Record>, LogError> {
        let records = loop {
            match self.handle.next(self.batch) {
                // Large records, too many at once.
                Err(error) if self.batch > 1 && is_too_much(&error) => self.batch /= 2,
                other => break other?,
            }
        };
        // What they know is kept no longer than this: it holds the provider's files open.
        let mut publishers = HashMap::new();
        let read = |record: &Handle| read(record, &self.bookmark, &mut publishers);
        Ok(records.iter().map(read).collect::<io::Result<_>>()?)
    }
}

fn is_too_much(error: &io::Error) -> bool {
    error.raw_os_error() == Some(RPC_S_INVALID_BOUND)
}

fn read(
    record: &Handle,
    bookmark: &Handle,
    publishers: &mut HashMap<String, Option<Handle>>,
) -> io::Result<Record> {
    // SAFETY: both are open.
    let well = unsafe { EvtUpdateBookmark(bookmark.0, record.0) };
    if well == 0 {
        return Err(last_error());
    }
    let plain = record.render(EvtRenderEventXml)?;
    let publisher = provider_of(&plain).and_then(|name| {
        let opened = publishers
            .entry(name.to_owned())
            .or_insert_with(|| Handle::publisher(name).ok());
        opened.as_ref()
    });
    // Many providers are no longer installed, or have no message for this one.
    let rendered = publisher.and_then(|publisher| record.with_message(publisher).ok());
    Ok(Record {
        xml: rendered.unwrap_or(plain),
        bookmark: bookmark.render(EvtRenderBookmark)?,
    })
}

/// The provider's name in a record as Windows renders it.
fn provider_of(xml: &str) -> Option<&str> {
    let (_, rest) = xml.split_once("<Provider Name=")?;
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    rest[1..].split_once(quote).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_is_found_in_a_record() {
        let xml = "<Event xmlns='x'><System><Provider Name='Service Control Manager' Guid='{}'/>";
        assert_eq!(provider_of(xml), Some("Service Control Manager"));
        assert_eq!(provider_of("<Event/>"), None);
    }
}
