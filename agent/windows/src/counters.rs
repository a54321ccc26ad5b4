//! Counters of network interfaces and volumes.

#![expect(unsafe_code, reason = "no safe crate reads these counters")]

use std::{fs::File, io, os::windows::fs::OpenOptionsExt as _, os::windows::io::AsRawHandle as _};

use windows_sys::Win32::{
    Foundation::ERROR_SUCCESS,
    NetworkManagement::IpHelper::{FreeMibTable, GetIfTable2, MIB_IF_ROW2, MIB_IF_TABLE2},
    Storage::FileSystem::{FILE_SHARE_READ, FILE_SHARE_WRITE},
    System::{
        IO::DeviceIoControl,
        Ioctl::{DISK_PERFORMANCE, IOCTL_DISK_PERFORMANCE},
    },
};

use crate::last_error;

/// `FilterInterface` of `InterfaceAndOperStatusFlags`: a layer of a driver above an interface, whose
/// traffic it counts once more.
const FILTER: u8 = 1 << 1;

/// A network interface; counters since it came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name for people, as in `Ethernet`.
    pub name: String,
    /// What it is (`ifType` of the IANA): 24 is loopback, 131 a tunnel.
    pub kind: u32,
    /// It counts the traffic of another one once more.
    pub is_filter: bool,
    /// It is up (`IfOperStatusUp`).
    pub is_up: bool,
    /// Bytes received and sent.
    pub bytes: (u64, u64),
    /// Packets received and sent.
    pub packets: (u64, u64),
    /// Packets with errors, received and sent.
    pub errors: (u64, u64),
    /// Packets that were thrown away, received and to be sent.
    pub drops: (u64, u64),
}

impl From<&MIB_IF_ROW2> for Interface {
    fn from(row: &MIB_IF_ROW2) -> Self {
        let length = row.Alias.iter().position(|unit| *unit == 0);
        let name = &row.Alias[..length.unwrap_or(row.Alias.len())];
        Self {
            name: String::from_utf16_lossy(name),
            kind: row.Type,
            is_filter: row.InterfaceAndOperStatusFlags._bitfield & FILTER != 0,
            is_up: row.OperStatus == 1,
            bytes: (row.InOctets, row.OutOctets),
            packets: (
                row.InUcastPkts.saturating_add(row.InNUcastPkts),
                row.OutUcastPkts.saturating_add(row.OutNUcastPkts),
            ),
            errors: (row.InErrors, row.OutErrors),
            drops: (row.InDiscards, row.OutDiscards),
        }
    }
}

/// The table of interfaces that Windows made.
struct Table(*mut MIB_IF_TABLE2);

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: GetIfTable2 made it, and nobody else frees it.
        unsafe { FreeMibTable(self.0.cast()) };
    }
}

/// All network interfaces.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut made: *mut MIB_IF_TABLE2 = std::ptr::null_mut();
    // SAFETY: the place is ours to be written.
    let code = unsafe { GetIfTable2(&raw mut made) };
    if code != ERROR_SUCCESS || made.is_null() {
        return Err(io::Error::from_raw_os_error(code.cast_signed()));
    }
    let table = Table(made);
    // SAFETY: the call went well, so that the table is there, aligned, and complete up to its count.
    let count = unsafe { (*table.0).NumEntries } as usize;
    // SAFETY: the same; only the address is computed, since the array is declared with one row.
    let first = unsafe { &raw const (*table.0).Table }.cast::<MIB_IF_ROW2>();
    // SAFETY: `count` rows follow each other from `first` on, and the table outlives the slice.
    let rows = unsafe { std::slice::from_raw_parts(first, count) };
    Ok(rows.iter().map(Interface::from).collect())
}

/// What a volume did since the system began to count; times in units of 100 ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Bytes read and written.
    pub bytes: (u64, u64),
    /// Reads and writes; these numbers wrap around.
    pub operations: (u32, u32),
    /// Time that reads and writes took together.
    pub times: (u64, u64),
    /// Time in which nothing was under way.
    pub idle: u64,
    /// When this was read.
    pub at: u64,
    /// Operations under way.
    pub under_way: u32,
}

/// Counters of the volume with a drive letter, as in `C:`. Needs no rights.
///
/// # Errors
///
/// If there is no such volume, or it does not count (a network drive).
pub fn volume(drive: &str) -> io::Result<Volume> {
    // Without access of any kind, which is enough to ask a device.
    let device = File::options()
        .access_mode(0)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .open(format!(r"\\.\{drive}"))?;
    let mut counts = DISK_PERFORMANCE::default();
    let size = u32::try_from(size_of::<DISK_PERFORMANCE>()).map_err(io::Error::other)?;
    let mut returned = 0;
    // SAFETY: the handle is open; `counts` is as large as said, and any bytes make a valid one; nothing
    // goes in, and the call is not overlapped.
    let well = unsafe {
        DeviceIoControl(
            device.as_raw_handle(),
            IOCTL_DISK_PERFORMANCE,
            std::ptr::null(),
            0,
            (&raw mut counts).cast(),
            size,
            &raw mut returned,
            std::ptr::null_mut(),
        )
    };
    if well == 0 {
        return Err(last_error());
    }
    if returned < size {
        return Err(io::Error::other(
            "the volume returned less than all its counters",
        ));
    }
    Ok(Volume {
        bytes: (
            counts.BytesRead.cast_unsigned(),
            counts.BytesWritten.cast_unsigned(),
        ),
        operations: (counts.ReadCount, counts.WriteCount),
        times: (
            counts.ReadTime.cast_unsigned(),
            counts.WriteTime.cast_unsigned(),
        ),
        idle: counts.IdleTime.cast_unsigned(),
        at: counts.QueryTime.cast_unsigned(),
        under_way: counts.QueueDepth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_interface() {
        let found = interfaces().unwrap();
        assert!(found.iter().any(|one| !one.name.is_empty()), "{found:?}");
    }

    #[test]
    fn a_volume_that_is_not_there_is_an_error() {
        assert!(volume("not a drive").is_err());
    }
}
