//! Writes what each target begins with into `DIR/TARGET/`: real policies, batches, segments and so
//! on, as the programs themselves make them.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let dir = env::args_os().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    for (target, seeds) in [
        ("framing", watchkeep_agent::logs::fuzz::framing_seeds()),
        ("redaction", watchkeep_agent::logs::fuzz::redaction_seeds()),
        ("spool", watchkeep_agent::spool::fuzz::seeds()),
        ("dbus", watchkeep_agent::dbus::fuzz::seeds()),
        ("policy", watchkeep_agent::policy::fuzz::seeds()),
        ("token", watchkeep_shared::token::fuzz::seeds()),
        ("heartbeat", watchkeep_core::host::fuzz::seeds()),
        ("row", watchkeep_core::series::fuzz::row_seeds()),
        ("chunk", watchkeep_core::series::fuzz::chunk_seeds()),
    ] {
        let dir = Path::new(&dir).join(target);
        fs::create_dir_all(&dir)?;
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{n:02}")), seed)?;
        }
    }
    Ok(())
}
