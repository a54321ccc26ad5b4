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

/// An array is a line `md0 : active raid1 sdb1[1] sda1[0](F)` and one with `[2/1] [_U]`: how many
/// members there should be and how many work. Arrays without redundancy do not have that. The kernel
/// begins the second line with the first member (`md_seq_show` in `drivers/md/md.c`): of an array that
/// has lost all of them everything is on the first line.
fn parse(text: &str) -> Vec<Array<'_>> {
    let mut arrays: Vec<Array<'_>> = Vec::new();
    let mut is_container = false;
    for line in text.lines() {
        if let Some((name, state)) = line.split_once(" : ")
            && name.starts_with("md")
        {
            is_container = is_container_line(state);
            if !is_container {
                arrays.push(Array {
                    name,
                    active: state.starts_with("active"),
                    missing: missing(state).unwrap_or(0),
                });
            }
        } else if !is_container && is_container_line(line) {
            is_container = true;
            arrays.pop();
        } else if !is_container
            && let (Some(array), Some(missing)) = (arrays.last_mut(), missing(line))
        {
            array.missing = missing;
        }
    }
    arrays
}

/// Whether it describes the set of disks that a firmware's RAID (Intel's `imsm`, DDF) keeps its arrays
/// in, which is never active. An array in one names it: `super external:/md127/0`, or with a `-` in
/// place of the first slash while it is read-only.
fn is_container_line(line: &str) -> bool {
    line.split_once("super external:")
        .is_some_and(|(_, metadata)| !metadata.starts_with(['/', '-']))
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

    const fn array(name: &str, active: bool, missing: u64) -> Array<'_> {
        Array {
            name,
            active,
            missing,
        }
    }

    #[test]
    fn missing_members_are_counted() {
        let text = "\
Personalities : [raid1] [raid6] [raid0]
md1 : active raid1 sdb2[1](F) sda2[0]
      1046528 blocks super 1.2 [2/1] [U_]
      [==>....]  recovery = 12.6% (1/2) finish=1min

md0 : active raid1 sdb1[1] sda1[0]
      523264 blocks super 1.2 [2/2] [UU]
      bitmap: 0/1 pages [0KB], 65536KB chunk

md2 : active raid0 sdd1[1] sdc1[0]
      7 blocks super 1.2 512k chunks

md3 : active (auto-read-only) raid10 sdh[3] sdg[2] sdf[1]
      2096128 blocks 512K chunks 2 near-copies [4/3] [_UUU]
      \tresync=PENDING

md4 : active raid5 nvme2n1p1[3] nvme1n1p1[1](R) nvme0n1p1[0] sdk[4](S)
      4188160 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/2] [UU_]

md127 : inactive sde[0](S)
      2 blocks super 1.2

unused devices: <none>
";
        assert_eq!(
            parse(text),
            [
                array("md1", true, 1),
                array("md0", true, 0),
                array("md2", true, 0),
                array("md3", true, 1),
                array("md4", true, 1),
                array("md127", false, 0)
            ]
        );
    }

    #[test]
    fn an_array_without_any_member_is_missing_all() {
        let text = "\
Personalities : [raid6] [raid5] [raid4] [linear]
md126 : active raid5 super 1.2 level 5, 64k chunk, algorithm 2 [4/0] [____]
      \x20
md5 : broken raid0 sda1[0]
      7 blocks super 1.2 512k chunks

md6 : inactive

unused devices: <none>
";
        assert_eq!(
            parse(text),
            [
                array("md126", true, 4),
                array("md5", false, 0),
                array("md6", false, 0)
            ]
        );
    }

    #[test]
    fn the_set_of_disks_of_a_firmware_raid_is_no_array() {
        let text = "\
Personalities : [raid1]
md125 : active (read-only) raid1 sdd[1] sdc[0]
      7 blocks super external:-md124/0 [2/2] [UU]

md124 : inactive sdd[1](S) sdc[0](S)
      65536 blocks super external:ddf

md126 : active raid1 sda[1] sdb[0]
      468848640 blocks super external:/md127/0 [2/1] [U_]

md127 : inactive sdb[1](S) sda[0](S)
      5504 blocks super external:imsm

md123 : inactive super external:imsm

unused devices: <none>
";
        assert_eq!(
            parse(text),
            [array("md125", true, 0), array("md126", true, 1)]
        );
    }
}
