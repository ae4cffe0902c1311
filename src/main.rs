//! The `snapferry` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    snapferry::cli::main()
}
