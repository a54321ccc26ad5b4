//! The mount table's form (`proc_pid_mountinfo(5)`), and what `/etc/fstab` intends (`fstab(5)`).

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountLine {
    /// Major and minor number: `254:0`.
    pub(super) device: String,
    /// Where it is mounted.
    pub(super) point: String,
    /// The file system's type.
    pub(super) kind: String,
    /// The file system's own options, which all its mounts share.
    pub(super) options: String,
}

impl MountLine {
    /// Whether the file system takes no writes, whatever its mount says.
    pub(super) fn is_read_only(&self) -> bool {
        self.has("ro") || self.is_emergency()
    }

    /// Whether the kernel shut it off after an error: ext4's words for it since Linux 6.15, where
    /// `ro` does not come with it any more.
    pub(super) fn is_emergency(&self) -> bool {
        self.has("emergency_ro") || self.has("shutdown")
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|found| found == option)
    }
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue`.
pub(super) fn parse(text: &str) -> Vec<MountLine> {
    text.lines()
        .filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(2);
            let device = mount.next()?;
            let point = mount.nth(1)?;
            let mut system = system.split(' ');
            let kind = system.next()?;
            let options = system.nth(1)?;
            Some(MountLine {
                device: device.to_owned(),
                point: unescape(point),
                kind: kind.to_owned(),
                options: options.to_owned(),
            })
        })
        .collect()
}

/// Whether `fstab` lists `point` and not as read-only.
pub(super) fn is_meant_writable(fstab: &str, point: &str) -> Option<bool> {
    fstab
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .find_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let listed = unescape(fields.next()?);
            let options = fields.nth(1).unwrap_or("defaults");
            (listed == point).then(|| !options.split(',').any(|option| option == "ro"))
        })
}

/// Blanks and such are written as three octal digits: `\040`.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if let Some(digits) = digits {
            let number = digits
                .iter()
                .fold(0_u32, |n, digit| n * 8 + u32::from(digit - b'0'));
            plain.push(number as u8);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    String::from_utf8(plain)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_with_or_without_optional_fields() {
        let table = parse(
            "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n36 35 8:1 / /my\\040data ro shared:1 master:2 - xfs /dev/sda1 rw\nbroken\n",
        );
        assert_eq!(table.len(), 2);
        assert_eq!(table[0].device, "254:0");
        assert_eq!(table[1].point, "/my data");
        // The mount is read-only, the file system is not.
        assert!(!table[1].is_read_only());
        assert_eq!(table[1].kind, "xfs");
    }

    #[test]
    fn fstab_says_what_is_meant() {
        let fstab = "# / ro\nUUID=1 / ext4 errors=remount-ro 0 1\n/dev/sdb /srv\\040a xfs ro,noatime 0 2\n/dev/sdc /x ext4\n";
        assert_eq!(is_meant_writable(fstab, "/"), Some(true));
        assert_eq!(is_meant_writable(fstab, "/srv a"), Some(false));
        assert_eq!(is_meant_writable(fstab, "/x"), Some(true));
        assert_eq!(is_meant_writable(fstab, "/y"), None);
    }

    #[test]
    fn escapes_are_undone_and_nothing_else() {
        assert_eq!(unescape("a\\040b\\134c\\9\\04"), "a b\\c\\9\\04");
    }
}
