//! Contents that came to a path and left it between two looks, by renaming or by copying: a log that
//! was rotated twice in quick succession, or while the agent was down.
//!
//! They lie beside the path, under names that rotation gives. What lies there is one of four: a file
//! that was followed, known by its identity; a copy of a known content, recognised by its first and last
//! bytes; something from before the last look, recognised by when it was made and written; or a content
//! that nobody has seen, which is read whole. Looked for only where something changed at a path, and
//! once more at the look after that, as a directory that is read amid a rotation may not show all.
//!
//! Where one can't be read or its age be found (some file systems do not keep when a file was made), it is
//! a gap; so it is if it is compressed already, when the archive took over the file's own time.
//! What was deleted, or compressed without its time, leaves no trace, and nobody can know of it; so it is
//! with a file from before a clock was set back.

mod beside;
mod known;

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use watchkeep_shared::wire::heartbeat::LogGapReason;

use self::beside::{Beside, is_rotation_of, list, unpacked, written_us};
pub(super) use self::known::Followed;
use super::{
    Reading,
    find::is_archive,
    tail::{FileId, Tail},
};
use crate::clock;

/// The wall clock was set if it differs so much from what has passed, microseconds.
const STEP_US: i64 = 1_000_000;

/// When a look began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Of the clock by which files are stamped, microseconds since the Unix epoch.
    file_us: i64,
    /// `None`: it was another process that looked.
    boot_ms: Option<i64>,
}

/// What a check knows of the time between its looks.
#[derive(Debug)]
pub(super) struct Between {
    /// `None` before the first ever: what lies beside then is older than the check.
    last: Option<Look>,
    /// What was made from then on may not have been seen.
    since: Option<Look>,
    /// What was at the paths; `None` in a new process.
    there: Option<Vec<(PathBuf, FileId)>>,
    /// Where something had changed at the last look.
    unsettled: Vec<PathBuf>,
    /// Files since then that were dealt with.
    reported: HashSet<FileId>,
    told_crowded: bool,
    committed: ScanProgress,
}

/// What a restart must know: of what was handed over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ScanProgress {
    /// What was made from then on may not have been seen, microseconds since the Unix epoch; `None`:
    /// there was no look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_us: Option<i64>,
    /// But these were dealt with.
    #[serde(default, skip_serializing_if = "HashSet::is_empty")]
    reported: HashSet<FileId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Old,
    New,
    /// Written since, but perhaps made before.
    Unknown,
}

impl Look {
    pub(super) fn now() -> Self {
        Self {
            file_us: clock::file_time_us(),
            boot_ms: Some(clock::now().boot_ms),
        }
    }

    /// When it was by the clock as it is `now`: the earlier of both, if that was set in between.
    fn seen_from(self, now: Self) -> i64 {
        let elapsed_ms = self.boot_ms.zip(now.boot_ms).map(|(from, to)| to - from);
        let moved = elapsed_ms.map_or(self.file_us, |elapsed| now.file_us - elapsed * 1_000);
        if self.file_us - moved > STEP_US {
            moved
        } else {
            self.file_us
        }
    }
}

impl Between {
    /// `seen`: what [`Between::committed`] gave before the restart.
    pub(super) fn new(seen: ScanProgress) -> Self {
        let since = seen.since_us.map(|file_us| Look {
            file_us,
            boot_ms: None,
        });
        Self {
            last: since,
            since,
            there: None,
            unsettled: Vec::new(),
            reported: seen.reported.clone(),
            told_crowded: false,
            committed: seen,
        }
    }

    /// Everything that was found has been handed over.
    pub(super) fn commit(&mut self) {
        self.committed.since_us = self.since.map(|look| look.file_us);
        self.committed.reported.clone_from(&self.reported);
    }

    pub(super) fn committed(&self) -> &ScanProgress {
        &self.committed
    }

    /// Where another file is now than at the last look, or a content began. `plain`: the path, if the
    /// check is for one alone. To be asked before new files are taken up.
    pub(super) fn changes(&self, known: &Followed<'_>, plain: Option<&Path>) -> Vec<PathBuf> {
        let Some(last) = self.last else {
            return Vec::new();
        };
        let listed = known.listed;
        let Some(there) = &self.there else {
            let paths = listed.iter().map(|(path, _)| path.as_path());
            return paths
                .chain(known.paths())
                .chain(plain)
                .map(Path::to_owned)
                .collect();
        };
        let is_same =
            |((path, id), (other, metadata)): (&(PathBuf, FileId), &(PathBuf, Metadata))| {
                *id == FileId::of(metadata) && path == other
            };
        let are_same = there.len() == listed.len() && there.iter().zip(listed).all(is_same);
        let mut changes = known.began(last.file_us);
        if !are_same {
            let come = listed
                .iter()
                .filter(|now| !there.iter().any(|before| is_same((before, now))))
                .map(|(path, _)| path);
            let gone = there
                .iter()
                .map(|(path, _)| path)
                .filter(|path| !listed.iter().any(|(now, _)| now == *path));
            changes.extend(come.chain(gone).cloned());
        }
        // While nothing is there something may have been.
        if let Some(path) = plain
            && listed.is_empty()
            && there.is_empty()
            && let Some(Ok(dir)) = path.parent().map(fs::metadata)
            && written_us(&dir) >= Some(last.file_us)
        {
            changes.push(path.to_owned());
        }
        changes
    }

    /// Takes up what came and went at `changes` since the last look. `now`: when this one began.
    pub(super) fn look(
        &mut self,
        now: Look,
        changes: Vec<PathBuf>,
        known: &mut Followed<'_>,
        reading: &mut Reading<'_>,
    ) {
        let places: Vec<PathBuf> = self.unsettled.iter().chain(&changes).cloned().collect();
        if let Some(since) = self.since
            && !places.is_empty()
        {
            let window = (since.seen_from(now), now.file_us);
            self.take_up(places, window, known, reading);
        } else {
            self.reported.clear();
        }
        self.looked(now, changes, known.listed);
    }

    /// Notes what was there at a look that began at `now`.
    pub(super) fn looked(
        &mut self,
        now: Look,
        changes: Vec<PathBuf>,
        listed: &[(PathBuf, Metadata)],
    ) {
        self.since = if changes.is_empty() || self.last.is_none() {
            Some(now)
        } else {
            self.last
        };
        self.last = Some(now);
        if self.there.is_none() || !changes.is_empty() {
            let there =
                |(path, metadata): &(PathBuf, Metadata)| (path.clone(), FileId::of(metadata));
            self.there = Some(listed.iter().map(there).collect());
        }
        self.unsettled = changes;
    }

    fn take_up(
        &mut self,
        mut places: Vec<PathBuf>,
        window: (i64, i64),
        known: &mut Followed<'_>,
        reading: &mut Reading<'_>,
    ) {
        let (mut series, targets) = known.led_to(&places);
        places.extend(targets);
        places.sort();
        places.dedup();
        let (lying, crowded) = list(&places, &series);
        // Else they would gather where each look finds a change.
        self.reported
            .retain(|id| lying.iter().any(|file| file.id == *id));
        if crowded && !self.told_crowded {
            self.told_crowded = true;
            let path = &places[0];
            tracing::warn!(
                path = %path.display(),
                "too many files lie beside the log to find all that its rotation leaves"
            );
            reading.pending.gap(path, LogGapReason::Unreadable, None);
        }
        series.extend(known.renamed_into(&lying));
        let place_of = |path: &Path| {
            let place = places.iter().find(|place| is_rotation_of(place, path));
            let in_series = || series.iter().any(|series| series.has(path));
            place.or_else(|| in_series().then(|| &places[0]))
        };
        if !crowded {
            self.tell_packed(&lying, &place_of, window, (&*known, &mut *reading));
        }
        let mut unseen: Vec<(&Beside, &PathBuf)> = lying
            .iter()
            .filter(|file| age(file, window) != Age::Old && !is_archive(&file.path))
            .filter(|file| !self.reported.contains(&file.id) && !known.has(file))
            .filter_map(|file| Some((file, place_of(&file.path)?)))
            .collect();
        unseen.sort_by_key(|(file, _)| (file.id.born_us(), file.written_us));
        for (file, place) in unseen {
            // It may lie there under several names.
            if !self.reported.insert(file.id) {
                continue;
            }
            match known.take_up(file, age(file, window), reading) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Renamed again just now, or not yet written: the next pass shows which.
                    self.reported.remove(&file.id);
                }
                Err(error) => {
                    tracing::warn!(path = %file.path.display(), %error, "a rotated log can't be read");
                    reading.pending.gap(place, LogGapReason::Unreadable, None);
                }
            }
        }
    }

    /// Archives of contents that nobody has seen: written since, and not by whoever packed them, nor
    /// made of a file that is open, which was written at that very time.
    fn tell_packed<'p>(
        &mut self,
        lying: &[Beside],
        place_of: &dyn Fn(&Path) -> Option<&'p PathBuf>,
        window: (i64, i64),
        (known, reading): (&Followed<'_>, &mut Reading<'_>),
    ) {
        let mut packed = lying.iter().filter_map(|file| {
            let is_new = age(file, window) == Age::New;
            let name = is_new.then(|| unpacked(&file.path)).flatten()?;
            let is_proof = file.written_us < file.id.born_us()
                && !lying.iter().any(|other| other.path == name)
                && !known.tails.iter().any(|tail| is_packed(tail, file));
            let place = is_proof.then(|| place_of(&name)).flatten()?;
            self.reported.insert(file.id).then_some(place)
        });
        let first = packed.next();
        // Known to be gone already.
        let lost = known.remembered.iter().filter(|known| known.now.is_none());
        if let Some(place) = first
            && 1 + packed.count() > lost.count()
        {
            tracing::warn!(path = %place.display(), "rotated and compressed before it was read");
            reading.pending.gap(place, LogGapReason::RotatedAway, None);
        }
    }
}

/// Whether an archive has the time of a followed file, in full or in whole seconds.
fn is_packed(tail: &Tail, archive: &Beside) -> bool {
    let written_us = tail.metadata().ok().as_ref().and_then(written_us);
    let seconds = written_us.map(|us| us - us.rem_euclid(1_000_000));
    [written_us, seconds].contains(&archive.written_us)
}

/// Whether a file is from after the beginning of a window, microseconds. Something that was only put
/// there, an unpacked archive, was written before.
fn age(file: &Beside, (since_us, now_us): (i64, i64)) -> Age {
    if file.written_us.is_none_or(|written| written < since_us) {
        return Age::Old;
    }
    match file.id.born_us() {
        // From before the clock was set back.
        Some(born) if born < since_us || born > now_us + STEP_US => Age::Old,
        Some(_) => Age::New,
        None => Age::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(born_us: Option<i64>, written_us: i64) -> Beside {
        let id = serde_json::json!({ "dev": 1, "ino": 2, "born_us": born_us });
        Beside {
            path: PathBuf::from("/l/app.log.1"),
            id: serde_json::from_value(id).unwrap(),
            bytes: 10,
            written_us: Some(written_us),
        }
    }

    #[test]
    fn a_file_is_new_if_it_was_made_and_written_since() {
        let hour_us = 3_600_000_000;
        let now_us = 100 * hour_us;
        let of = |born_us, written_us| age(&beside(born_us, written_us), (now_us - 10, now_us));
        assert_eq!(of(Some(now_us - 10), now_us - 5), Age::New);
        assert_eq!(of(Some(now_us - 11), now_us - 5), Age::Old, "made before");
        assert_eq!(of(Some(now_us - 10), now_us - hour_us), Age::Old, "moved");
        assert_eq!(of(Some(now_us + hour_us), now_us), Age::Old, "clock set");
        assert_eq!(of(None, now_us - 5), Age::Unknown);
        assert_eq!(of(None, now_us - 11), Age::Old);
    }

    #[test]
    fn a_clock_that_is_set_back_hides_nothing_that_is_made_after_it() {
        let look = |file_us, boot_ms| Look {
            file_us,
            boot_ms: Some(boot_ms),
        };
        let last = look(7_200_000_000, 1_000);
        assert_eq!(last.seen_from(look(7_210_000_000, 11_000)), 7_200_000_000);
        // An hour back, and on.
        assert_eq!(last.seen_from(look(3_610_000_000, 11_000)), 3_600_000_000);
        assert_eq!(last.seen_from(look(9_000_000_000, 11_000)), 7_200_000_000);
        let of_other = Look {
            boot_ms: None,
            ..last
        };
        assert_eq!(of_other.seen_from(look(3_610_000_000, 1)), 7_200_000_000);
    }
}
