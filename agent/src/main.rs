//! The agent's command line.

fn main() -> std::process::ExitCode {
    watchkeep_agent::cli::main()
}
