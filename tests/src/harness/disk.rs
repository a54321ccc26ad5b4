//! Disks of a test's own, which it may freeze and fill. They are mounted, so that only root can make
//! them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Size of a disk: enough for a short run.
const BYTES: u64 = 192 * 1024 * 1024;

/// A file system in a file, mounted. Dropping it ends it.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
    is_mounted: bool,
}

impl Disk {
    /// Makes and mounts one.
    pub fn mount() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("watchkeep-disk-")
            .tempdir()?;
        let mut disk = Self {
            dir,
            is_mounted: false,
        };
        std::fs::create_dir(disk.path())?;
        let image = disk.dir.path().join("image");
        std::fs::File::create(&image)?.set_len(BYTES)?;
        // No blocks are kept for root: the disk is full for everybody at once.
        run("mkfs.ext4", &[Path::new("-q"), Path::new("-m0"), &image])?;
        run("mount", &[Path::new("-oloop"), &image, &disk.path()])?;
        disk.is_mounted = true;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// From now on whoever writes to it waits.
    pub fn freeze(&self) -> Result<()> {
        run("fsfreeze", &[Path::new("-f"), &self.path()])
    }

    /// Lets a frozen disk continue.
    pub fn thaw(&self) -> Result<()> {
        run("fsfreeze", &[Path::new("-u"), &self.path()])
    }

    /// Takes all space that is left.
    pub fn fill(&self) -> Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.filler())?;
        // Down to single bytes, so that nothing at all is left.
        for size in [1024 * 1024, 4_096, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // It is frozen only after a failure.
            let _ = self.thaw();
            // Lazily: a program that was killed may still have it open.
            let _ = run("umount", &[Path::new("-l"), &self.path()]);
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("can't run {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {errors}");
    Ok(())
}
