//! Software RAID: `/proc/mdstat` (`md(4)`). Without an array there are no such values.

use std::path::Path;

use super::{reader, slow::Named};

/// Most arrays that are reported.
const MAX_ARRAYS: usize = 32;

/// One array.
#[derive(Debug, PartialEq, Eq)]
struct Array<'t> {
    name: &'t str,
    active: bool,
    /// Members that it should have and that do not work: failed, removed, or being rebuilt.
    missing: u64,
}

pub(super) fn read(root: &Path) -> Vec<Named> {
    let text = reader::text(root.join("proc/mdstat")).unwrap_or_default();
    parse(&text)
        .into_iter()
        .take(MAX_ARRAYS)
        .flat_map(|array| {
            let inactive = f64::from(u8::from(!array.active));
            [
                (
                    format!("raid.missing_disks:{}", array.name),
                    Some(array.missing as f64),
                ),
                (format!("raid.inactive:{}", array.name), Some(inactive)),
            ]
        })
        .collect()
}

/// An array is a line `md0 : active raid1 sdb1[1] sda1[0](F)` and a line with `[2/1] [_U]`: how many
/// members there should be and how many work. Arrays without redundancy don't have that.
fn parse(text: &str) -> Vec<Array<'_>> {
    let mut arrays: Vec<Array<'_>> = Vec::new();
    for line in text.lines() {
        if let Some((name, state)) = line.split_once(" : ")
            && name.starts_with("md")
        {
            arrays.push(Array {
                name,
                active: state.starts_with("active"),
                missing: 0,
            });
        } else if let (Some(array), Some(missing)) = (arrays.last_mut(), missing(line)) {
            array.missing = missing;
        }
    }
    arrays
}

fn missing(line: &str) -> Option<u64> {
    line.split('[').skip(1).find_map(|part| {
        let (should, work) = part.split_once(']')?.0.split_once('/')?;
        let (should, work): (u64, u64) = (should.parse().ok()?, work.parse().ok()?);
        Some(should.saturating_sub(work))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_members_are_counted() {
        let text = "Personalities : [raid1] [raid6] [raid0]\nmd1 : active raid1 sdb2[1](F) sda2[0]\n      1046528 blocks super 1.2 [2/1] [U_]\n      [==>....]  recovery = 12.6% (1/2) finish=1min\n\nmd0 : active raid1 sdb1[1] sda1[0]\n      523264 blocks super 1.2 [2/2] [UU]\n      bitmap: 0/1 pages [0KB], 65536KB chunk\n\nmd2 : active raid0 sdd1[1] sdc1[0]\n      7 blocks super 1.2 512k chunks\n\nmd127 : inactive sde[0](S)\n      2 blocks super 1.2\n\nunused devices: <none>\n";
        let array = |name, active, missing| Array {
            name,
            active,
            missing,
        };
        assert_eq!(
            parse(text),
            [
                array("md1", true, 1),
                array("md0", true, 0),
                array("md2", true, 0),
                array("md127", false, 0)
            ]
        );
    }
}
