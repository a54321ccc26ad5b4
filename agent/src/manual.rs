//! The manual pages and the shells' completions, made from the command line's own definition, so
//! that they say what the program does. Packages are built with them.

use std::{fs, path::Path};

use clap::Command;
use clap_complete::Shell;

/// Writes `NAME.1` and a page for each verb, and completions for bash, zsh and fish, into `dir`,
/// which is made if it is not there.
///
/// # Errors
///
/// If something can't be written.
pub fn write(command: &Command, dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command.clone(), dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), command.get_name(), dir)?;
    }
    Ok(())
}
